package domaincontroller

import (
	"fmt"
	"slices"
)

// Hide hides attributes of the object with a DN, and of all objects below it, from LDAP
// clients: an account without the right to read an attribute finds it neither in an entry nor
// with a filter (MS-ADTS 3.1.1.3.1.3.1). The entry itself, its DN and the identifiers in an
// extended DN stay visible, and the filter (objectClass=*) finds it. A further call replaces the attributes for this DN. Without
// attributes, it makes them visible again. Like a change of rights in Active Directory, Hide
// changes no update sequence number of the objects.
func (d *Server) Hide(dn string, attributes ...string) error { return d.hide(dn, true, attributes) }

// HideOne is Hide without the objects below the object.
func (d *Server) HideOne(dn string, attributes ...string) error {
	return d.hide(dn, false, attributes)
}

// hiding are the attributes that a call of Hide or HideOne hides.
type hiding struct {
	names []string
	below bool // also of the objects below
}

func (d *Server) hide(dn string, below bool, attributes []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	base, err := d.liveObject(dn)
	if err != nil {
		return fmt.Errorf("hide attributes of %s: %w", dn, err)
	}
	names := make([]string, len(attributes))
	for i, name := range attributes {
		attribute := attributeByName(name)
		if attribute == nil {
			return fmt.Errorf("hide attributes of %s: no attribute %s", dn, name)
		}
		names[i] = attribute.Name
	}
	if d.hidden == nil {
		d.hidden = map[*object]hiding{}
	}
	if d.hidden[base] = (hiding{names, below}); len(names) == 0 {
		delete(d.hidden, base)
	}
	return nil
}

// DenyListing takes from the account the right to list the contents of a container: no search finds
// the objects directly below it, not even a base search. Objects further below are not affected,
// because the right to list an object is that on its container (MS-ADTS 5.1.3.3.6). Like a change
// of rights in Active Directory, it changes no update sequence number. AllowListing gives the right
// back.
func (d *Server) DenyListing(dn string) error { return d.setListing(dn, false) }

// AllowListing takes back DenyListing.
func (d *Server) AllowListing(dn string) error { return d.setListing(dn, true) }

func (d *Server) setListing(dn string, allowed bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	container, err := d.liveObject(dn)
	if err != nil {
		return fmt.Errorf("change listing of %s: %w", dn, err)
	}
	if d.unlisted == nil {
		d.unlisted = map[*object]bool{}
	}
	if d.unlisted[container] = true; allowed {
		delete(d.unlisted, container)
	}
	return nil
}

// isHidden reports whether an attribute of an object is hidden from LDAP clients.
func (d *Server) isHidden(o *object, attribute *attributeType) bool {
	if len(d.hidden) == 0 {
		return false
	}
	for base, h := range d.hidden {
		if slices.Contains(h.names, attribute.Name) && (o == base || h.below && o.isBelow(base)) {
			return true
		}
	}
	return false
}

// withoutHidden returns a filter on an attribute that is false for objects of which it is
// hidden, as for objects without the attribute.
func (d *Server) withoutHidden(attribute *attributeType, matches filter) filter {
	if attribute == nil || len(d.hidden) == 0 {
		return matches
	}
	return func(o *object) ternary {
		if d.isHidden(o, attribute) {
			return isFalse
		}
		return matches(o)
	}
}
