package domaincontroller

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Limits of a domain controller's default query policy.
const (
	maxPageSize = 1000
	maxCursors  = 10 // paged searches in progress on a connection
)

// search is a search request.
type search struct {
	base          string
	scope         int64
	limit         int  // entries in this answer
	clientLimited bool // limit is the client's own size limit
	typesOnly     bool
	filter        element
	selection     selection
	showDeleted   bool // the client requests deleted objects
	readsDeleted  bool // showDeleted, and the account may read them
	domainScope   bool
	dnForm        dnForm
	descriptors   bool // the client requests security descriptors without the SACL
	paged         bool
	pageSize      int
	cookie        []byte
	now           time.Time
	isRootDSE     bool
	unsupported   bool   // a critical control is not supported
	malformed     bool   // the request or a control cannot be parsed
	key           string // identifies the search that a cookie belongs to
}

// cursor is the state of a paged search: the objects that matched at its start and were
// not sent yet.
type cursor struct {
	cookie    []byte
	key       string
	remaining []*object
}

// Parts of a search request (RFC 4511 4.5.1).
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
	s := search{
		base: r.part(partBase).text(), scope: r.part(partScope).number(), typesOnly: r.part(partTypesOnly).flag(), filter: r.part(partFilter),
		limit: maxPageSize, now: c.server.options.Now(),
		malformed:   len(r.operation.children) <= partAttributes,
		showDeleted: r.has(controlShowDeleted) || r.has(controlShowRecycled), domainScope: r.has(controlDomainScope),
	}
	names := make([]string, 0, len(r.part(partAttributes).children))
	for _, name := range r.part(partAttributes).children {
		names = append(names, name.text())
	}
	s.selection = selectAttributes(names)
	s.isRootDSE = s.base == "" && s.scope == ldap.ScopeBaseObject
	s.readsDeleted = s.showDeleted && c.account != nil && c.account == c.server.service && c.server.options.ReadsDeleted
	for _, control := range r.controls {
		switch control.oid {
		case controlShowDeleted, controlShowRecycled, controlDomainScope, controlManageDSAIT:
		case controlExtendedDN:
			s.dnForm = parseDNForm(control.value)
		case controlSDFlags:
			s.descriptors = readsDescriptors(control.value)
		case controlPaging:
			s.parsePaging(control.value)
		default:
			s.unsupported = s.unsupported || control.critical
		}
	}
	if n := r.part(partSizeLimit).number(); n > 0 && n < int64(s.limit) {
		s.limit, s.clientLimited = int(n), true
	}
	if s.scope < ldap.ScopeBaseObject || s.scope > ldap.ScopeWholeSubtree || s.dnForm == dnInvalid {
		s.malformed = true
	}
	s.key = fmt.Sprintf("%q %d %t %x %x", strings.ToLower(s.base), s.scope, s.showDeleted, s.filter.tag, s.filter.content)
	return s
}

// parsePaging parses the value of the paging control (RFC 2696).
func (s *search) parsePaging(value []byte) {
	sequence, err := decode(value)
	if err != nil || len(sequence.children) != 2 {
		s.malformed = true
		return
	}
	size := sequence.children[0].number()
	if size < 0 || size > math.MaxInt32 {
		s.malformed = true
		return
	}
	s.paged = true
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

var unavailableExtensionResult = errorResult(ldap.LDAPResultUnavailableCriticalExtension,
	"00002040: SvcErr: DSID-031401E7, problem 5010 (UNAVAIL_EXTENSION), data 0\n")

// answerSearch writes the entries of one answer. They are a consistent snapshot. The next
// page is another snapshot.
func (d *Server) answerSearch(c *connection, id int64, s search) (outcome result, cookie []byte, entries int) {
	d.endMemberships()
	d.mu.RLock()
	defer d.mu.RUnlock()
	switch {
	case s.malformed:
		return errorResult(ldap.LDAPResultProtocolError, "000020D6: LdapErr: DSID-0C090A80, comment: Error decoding ldap message, data 0, v4f7c"), nil, 0
	case s.unsupported:
		return unavailableExtensionResult, nil, 0
	case s.isRootDSE && (c.account != nil || !s.paged): // a paged search for rootDSE requires a bind
		d.encodeRootDSE(&c.encoder, id, c.account, s)
		return result{}, nil, 1
	case c.account == nil:
		return notBoundResult, nil, 0
	}
	matches, refused := d.compileSearch(s)
	if refused.code != ldap.LDAPResultSuccess {
		return refused, nil, 0
	}
	found, ok := d.findObjects(c, s, matches)
	switch {
	case !ok:
		return unavailableExtensionResult, nil, 0
	case len(s.cookie) > 0 && s.pageSize == 0:
		return result{}, nil, 0 // the client cancels the search
	}
	limit := s.limit
	if s.paged && s.pageSize > 0 {
		limit = min(limit, s.pageSize)
	}
	for len(found) > 0 && entries < limit {
		// Objects can have changed since the first page.
		if o := found[0]; len(s.cookie) == 0 || matches(o) {
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
	d.encodeReference(&c.encoder, id, s)
	return result{}, nil, entries
}

// findObjects returns the objects that a search has not sent yet. It reports false for an
// invalid cookie.
func (d *Server) findObjects(c *connection, s search, matches func(*object) bool) (found []*object, ok bool) {
	if len(s.cookie) > 0 {
		return c.takeCursor(s)
	}
	for _, o := range d.objects {
		if matches(o) {
			found = append(found, o)
		}
	}
	return found, true
}

// compileSearch returns whether an object belongs to the result of a search, or the result
// that refuses the search.
func (d *Server) compileSearch(s search) (matches func(*object) bool, refused result) {
	filter, err := d.compileFilter(s.filter, 0)
	switch {
	case errors.Is(err, errConstructedAttribute):
		return nil, errorResult(ldap.LDAPResultInappropriateMatching, "0000202E: LdapErr: DSID-0C0907F8, comment: Inappropriate matching, data 0, v4f7c")
	case err != nil:
		return nil, errorResult(ldap.LDAPResultProtocolError, "00000057: LdapErr: DSID-0C0907EE, comment: Error decoding filter, data 0, v4f7c")
	}
	base, refused := d.findBase(s)
	return func(o *object) bool {
		return inScope(o, base, s.scope) && d.isVisible(o, s) && filter(o) == isTrue
	}, refused
}

func inScope(o, base *object, scope int64) bool {
	switch scope {
	case ldap.ScopeBaseObject:
		return o == base
	case ldap.ScopeSingleLevel:
		return o.parent == base && !o.partition
	default:
		return o.isBelow(base)
	}
}

// isVisible reports whether an object exists for a search.
func (d *Server) isVisible(o *object, s search) bool {
	switch {
	case !o.deleted:
		return o.parent == nil || !d.unlisted[o.parent]
	case o == d.deleted:
		return s.showDeleted
	default:
		return s.readsDeleted
	}
}

// findBase returns the object that a search begins at. The base can be a DN, <GUID=…> or
// <SID=…> (MS-ADTS 3.1.1.3.1.2.4).
func (d *Server) findBase(s search) (*object, result) {
	badName := errorResult(ldap.LDAPResultInvalidDNSyntax, "0000208F: NameErr: DSID-03100233, problem 2006 (BAD_NAME), data 8350, best match of:\n\t'"+s.base+"'\n")
	if form, text, ok := strings.Cut(strings.ToUpper(s.base), "="); ok && (form == "<GUID" || form == "<SID") {
		find := d.findByGUID
		if form == "<SID" {
			find = d.findBySID
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
	found, nearest := d.locate(dn)
	switch {
	case nearest == nil:
		return nil, otherDomain(dn)
	case found == nil:
		return nil, noSuchObject(nearest)
	case !d.isVisible(found, s):
		return nil, noSuchObject(found.parent)
	}
	return found, result{}
}

// otherDomain returns the result for a DN outside of the domain: a referral if the DN names
// another domain.
func otherDomain(dn *ldap.DN) result {
	var labels []string
	for _, part := range dn.RDNs {
		if r := newRDN(part); r.attribute == "DC" {
			labels = append(labels, r.value)
		}
	}
	if len(labels) == 0 {
		return noSuchObject(nil)
	}
	host := strings.Join(labels, ".")
	r := errorResult(ldap.LDAPResultReferral, "0000202B: RefErr: DSID-0310084A, data 0, 1 access points\n\tref 1: '"+host+"'\n")
	r.referral = "ldap://" + host + "/" + formatDN(dn.RDNs)
	return r
}

// noSuchObject returns the result for a missing object with its nearest existing ancestor.
func noSuchObject(nearest *object) result {
	for nearest != nil && nearest.deleted {
		nearest = nearest.parent
	}
	matched := ""
	if nearest != nil {
		matched = nearest.dn()
	}
	r := errorResult(ldap.LDAPResultNoSuchObject, "0000208D: NameErr: DSID-0310028D, problem 2001 (NO_OBJECT), data 0, best match of:\n\t'"+matched+"'\n")
	r.matched = matched
	return r
}

// findByGUID returns the object with a GUID, which is text or hexadecimal, or nil. It
// reports false for an invalid GUID.
func (d *Server) findByGUID(text string) (*object, bool) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 || len(text) != 32 && len(text) != 36 {
		return nil, false
	}
	if len(text) == 36 { // the first three fields are little-endian
		slices.Reverse(raw[:4])
		slices.Reverse(raw[4:6])
		slices.Reverse(raw[6:8])
	}
	return d.byGUID[ad.GUID(raw)], true
}

// findBySID returns the object with a SID, which is S-1-5-… or hexadecimal, or nil. It
// reports false for an invalid SID.
func (d *Server) findBySID(text string) (*object, bool) {
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

// addCursor stores the rest of a paged search. It returns the cookie for the next page.
func (c *connection) addCursor(s search, remaining []*object) []byte {
	cookie := make([]byte, 16)
	_, _ = rand.Read(cookie) // never fails
	if len(c.cursors) == maxCursors {
		c.cursors = slices.Delete(c.cursors, 0, 1)
	}
	c.cursors = append(c.cursors, cursor{cookie, s.key, remaining})
	return cookie
}

// takeCursor removes and returns the rest of a paged search. A cookie is valid once, on
// its connection, for the same search.
func (c *connection) takeCursor(s search) ([]*object, bool) {
	i := slices.IndexFunc(c.cursors, func(cur cursor) bool { return bytes.Equal(cur.cookie, s.cookie) })
	if i < 0 || c.cursors[i].key != s.key {
		return nil, false
	}
	remaining := c.cursors[i].remaining
	c.cursors = slices.Delete(c.cursors, i, i+1)
	return remaining, true
}
