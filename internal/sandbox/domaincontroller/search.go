package domaincontroller

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// The limits of a domain controller's default policy.
const (
	maxPageSize = 1000
	maxCursors  = 10 // searches that a connection may have going on
	maxInt32    = 1<<31 - 1
)

// search is one search request.
type search struct {
	base          string
	scope         int64
	limit         int // of entries, in this answer
	typesOnly     bool
	filter        element
	selection     selection
	showDeleted   bool
	readsDeleted  bool // the account may see what Deleted Objects holds
	domainScope   bool
	extended      dnForm
	paged         bool
	pageSize      int
	cookie        []byte
	clientLimited bool // the client's own limit is the one that holds
	now           time.Time
	isRootDSE     bool
	unknown       bool // a critical control is
	malformed     bool
	searchKey     string // identifies the search that a cookie goes on with
}

// held is what is left of a paged search: the objects that it found when it began,
// and has not given yet.
type cursor struct {
	cookie    []byte
	searchKey string
	rest      []*object
}

// The parts of a search request (RFC 4511 4.5.1).
const (
	partBase = iota
	partScope
	partAliases
	partSizeLimit
	partTimeLimit
	partTypesOnly
	partFilter
	partAttributes
)

func (c *connection) parseSearch(r request) search {
	s := search{base: r.part(partBase).text(), scope: r.part(partScope).number(), typesOnly: r.part(partTypesOnly).flag(), limit: maxPageSize, now: c.server.options.Now()}
	if len(r.operation.children) <= partAttributes {
		s.malformed = true
		return s
	}
	s.filter = r.part(partFilter)
	names := make([]string, 0, len(r.part(partAttributes).children))
	for _, name := range r.part(partAttributes).children {
		names = append(names, name.text())
	}
	s.selection = selectAttributes(names)
	s.isRootDSE = s.base == "" && s.scope == ldap.ScopeBaseObject
	s.showDeleted = r.has(controlShowDeleted)
	s.domainScope = r.has(controlDomainScope)
	s.readsDeleted = s.showDeleted && c.account != nil && c.account == c.server.service && c.server.options.ReadsDeleted
	for _, control := range r.controls {
		switch control.oid {
		case controlShowDeleted, controlDomainScope, controlManageDSAIT:
		case controlExtendedDN:
			s.extended = parseDNForm(control.value)
		case controlPaging:
			s.paged = true
			s.parsePaging(control.value)
		default:
			s.unknown = s.unknown || control.critical
		}
	}
	if n := r.part(partSizeLimit).number(); n > 0 && n < int64(s.limit) {
		s.limit, s.clientLimited = int(n), true
	}
	s.searchKey = fmt.Sprintf("%q %d %t %x %x", strings.ToLower(s.base), s.scope, s.showDeleted, s.filter.tag, s.filter.content)
	return s
}

// parsePaging reads the size and the cookie of RFC 2696.
func (s *search) parsePaging(value []byte) {
	s.malformed = true
	sequence, _, err := parseElement(value, 0)
	if err != nil || len(sequence.children) != 2 {
		return
	}
	size := sequence.children[0].number()
	if size < 0 || size > maxInt32 {
		return
	}
	s.malformed = false
	s.pageSize = min(int(size), maxPageSize)
	s.cookie = sequence.children[1].content
}

func (c *connection) search(r request) {
	s := c.parseSearch(r)
	outcome, cookie, entries := c.server.answerSearch(c, r.id, s)
	paged := s.paged && outcome.code == ldap.LDAPResultSuccess
	c.encoder.result(r.id, tagSearchDone, outcome, paged, cookie)
	c.server.updateCounters(func(n *Counters) {
		n.Searches++
		n.Entries += entries
		if paged {
			n.Pages++
		}
	})
}

// run writes the entries of one answer. All of them are of one moment; the next
// page is of another.
func (d *Server) answerSearch(c *connection, id int64, s search) (outcome result, cookie []byte, entries int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case s.malformed || s.extended == dnInvalid || s.scope < ldap.ScopeBaseObject || s.scope > ldap.ScopeWholeSubtree:
		return errorResult(ldap.LDAPResultProtocolError, "000020D6: LdapErr: DSID-0C090A80, comment: Error decoding ldap message, data 0, v4f7c"), nil, 0
	case s.unknown:
		return unavailableExtensionResult, nil, 0
	case s.isRootDSE && (c.account != nil || !s.paged): // not even this, in pages, before a bind
		d.encodeRootDSE(&c.encoder, id, s)
		return result{}, nil, 1
	case c.account == nil:
		return notBoundResult, nil, 0
	}
	matches, err := d.compileFilter(s.filter, 0)
	switch {
	case errors.Is(err, errConstructedAttribute):
		return errorResult(ldap.LDAPResultInappropriateMatching, "0000202E: LdapErr: DSID-0C0907F8, comment: Inappropriate matching, data 0, v4f7c"), nil, 0
	case err != nil:
		return errorResult(ldap.LDAPResultProtocolError, "00000057: LdapErr: DSID-0C0907EE, comment: Error decoding filter, data 0, v4f7c"), nil, 0
	}
	base, refused := d.findBase(s)
	if refused.code != ldap.LDAPResultSuccess {
		return refused, nil, 0
	}
	keeps := func(o *object) bool {
		return inScope(o, base, s) && d.isVisible(o, s) && matches(o) == isTrue
	}
	var found []*object
	if len(s.cookie) > 0 {
		known := false
		if found, known = c.takeCursor(s); !known {
			return unavailableExtensionResult, nil, 0
		}
		if s.pageSize == 0 {
			return result{}, nil, 0 // the client gives the search up
		}
	} else {
		found = d.findObjects(base, s, keeps)
	}
	limit := s.limit
	if s.paged && s.pageSize > 0 {
		limit = min(limit, s.pageSize)
	}
	for len(found) > 0 && entries < limit {
		// What has changed since the search began counts as it is now.
		if o := found[0]; len(s.cookie) == 0 || keeps(o) {
			d.encodeEntry(&c.encoder, id, o, s)
			entries++
		}
		found = found[1:]
	}
	switch {
	case len(found) > 0 && (!s.paged || s.clientLimited && entries == s.limit):
		return result{code: ldap.LDAPResultSizeLimitExceeded}, nil, entries
	case len(found) > 0:
		return result{}, c.addCursor(s, found), entries
	}
	if s.scope == ldap.ScopeWholeSubtree && base == d.root && !s.domainScope {
		d.encodeReference(&c.encoder, id)
	}
	return result{}, nil, entries
}

var unavailableExtensionResult = errorResult(ldap.LDAPResultUnavailableCriticalExtension,
	"00002040: SvcErr: DSID-031401E7, problem 5010 (UNAVAIL_EXTENSION), data 0\n")

// base finds the object that a search starts at: by its name, as <GUID=…> or as
// <SID=…> (MS-ADTS 3.1.1.3.1.2.4).
func (d *Server) findBase(s search) (*object, result) {
	badName := errorResult(ldap.LDAPResultInvalidDNSyntax, "0000208F: NameErr: DSID-03100233, problem 2006 (BAD_NAME), data 8350, best match of:\n\t'"+s.base+"'\n")
	if kind, text, ok := strings.Cut(strings.ToUpper(s.base), "="); ok && (kind == "<GUID" || kind == "<SID") {
		find := d.byGUIDText
		if kind == "<SID" {
			find = d.bySIDText
		}
		o, ok := find(strings.TrimSuffix(text, ">"))
		switch {
		case !ok:
			return nil, badName
		case o == nil || !d.isVisible(o, s):
			return nil, noSuchObject(nil)
		}
		return o, result{}
	}
	dn, err := ldap.ParseDN(s.base)
	if err != nil {
		return nil, badName
	}
	if len(dn.RDNs) == 0 {
		return nil, noSuchObject(nil)
	}
	found, above := d.locate(dn)
	switch {
	case above == nil:
		elsewhere := make([]string, 0, len(dn.RDNs))
		for _, part := range dn.RDNs {
			if r := newRDN(part); r.attribute == "DC" {
				elsewhere = append(elsewhere, r.value)
			}
		}
		if len(elsewhere) == 0 {
			return nil, noSuchObject(nil)
		}
		host := strings.Join(elsewhere, ".")
		refused := errorResult(ldap.LDAPResultReferral, "0000202B: RefErr: DSID-0310084A, data 0, 1 access points\n\tref 1: '"+host+"'\n")
		refused.referral = "ldap://" + host + "/" + formatDN(dn.RDNs)
		return nil, refused
	case found == nil:
		return nil, noSuchObject(above)
	case !d.isVisible(found, s):
		return nil, noSuchObject(found.parent)
	}
	return found, result{}
}

// noSuchObject names the lowest object that exists of a name.
func noSuchObject(above *object) result {
	for above != nil && above.deleted {
		above = above.parent
	}
	matched := ""
	if above != nil {
		matched = above.dn()
	}
	r := errorResult(ldap.LDAPResultNoSuchObject, "0000208D: NameErr: DSID-0310028D, problem 2001 (NO_OBJECT), data 0, best match of:\n\t'"+matched+"'\n")
	r.matched = matched
	return r
}

// byGUIDText finds an object by the text of its GUID, or by its bytes in hexadecimal.
// It reports whether that was a GUID.
func (d *Server) byGUIDText(text string) (*object, bool) {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == 16 {
		return d.byGUID[ad.GUID(raw)], true
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 || len(text) != 36 {
		return nil, false
	}
	slices.Reverse(raw[:4]) // the first three fields travel little-endian
	slices.Reverse(raw[4:6])
	slices.Reverse(raw[6:8])
	return d.byGUID[ad.GUID(raw)], true
}

// bySIDText finds an object by its SID, as S-1-5-… or by its bytes in hexadecimal.
func (d *Server) bySIDText(text string) (*object, bool) {
	sid, ok := parseSID(text)
	if raw, err := hex.DecodeString(text); !ok && err == nil {
		sid, ok = string(raw), len(raw) >= 8
	}
	if !ok {
		return nil, false
	}
	if i := slices.IndexFunc(d.objects, func(o *object) bool { return o.sid == sid && !o.deleted }); i >= 0 {
		return d.objects[i], true
	}
	return nil, true
}

// visible reports whether there is such an object at all, to this search.
func (d *Server) isVisible(o *object, s search) bool {
	switch {
	case !o.deleted:
		return true
	case o == d.deleted:
		return s.showDeleted
	default:
		return s.readsDeleted
	}
}

func inScope(o, base *object, s search) bool {
	switch s.scope {
	case ldap.ScopeBaseObject:
		return o == base
	case ldap.ScopeSingleLevel:
		return o.parent == base && !o.partition
	default:
		return o.isBelow(base)
	}
}

// findObjects are the objects that a search finds, in the order in which they were made.
func (d *Server) findObjects(base *object, s search, keeps func(*object) bool) []*object {
	if s.scope == ldap.ScopeBaseObject {
		if keeps(base) {
			return []*object{base}
		}
		return nil
	}
	var found []*object
	for _, o := range d.objects {
		if keeps(o) {
			found = append(found, o)
		}
	}
	return found
}

// hold keeps the rest of a paged search under a new cookie.
func (c *connection) addCursor(s search, rest []*object) []byte {
	cookie := make([]byte, 16)
	_, _ = rand.Read(cookie) // never fails
	if len(c.cursors) == maxCursors {
		c.cursors = slices.Delete(c.cursors, 0, 1)
	}
	c.cursors = append(c.cursors, cursor{cookie, s.searchKey, rest})
	return cookie
}

// resume takes up the search that a cookie stands for. A cookie is good once, on
// its own connection, and for its own search.
func (c *connection) takeCursor(s search) ([]*object, bool) {
	i := slices.IndexFunc(c.cursors, func(h cursor) bool { return bytes.Equal(h.cookie, s.cookie) })
	if i < 0 || c.cursors[i].searchKey != s.searchKey {
		return nil, false
	}
	rest := c.cursors[i].rest
	c.cursors = slices.Delete(c.cursors, i, i+1)
	return rest, true
}
