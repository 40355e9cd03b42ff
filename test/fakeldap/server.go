package fakeldap

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// The account of a Server, and the base of its entries.
const (
	BindDN   = "CN=svc,DC=corp,DC=example,DC=com"
	Password = "Pa55w0rd!"
	Base     = "DC=corp,DC=example,DC=com"
)

// Entry is a user or group of a Server. Each attribute has one value.
type Entry struct {
	DN         string
	Attributes map[string]string
}

// User returns the n-th user.
func User(n int) Entry {
	return newEntry(1, n, "user", map[string]string{
		"mail": fmt.Sprintf("user%d@corp.example.com", n), "userAccountControl": "512", "sAMAccountType": "805306368",
	})
}

// Group returns the n-th group.
func Group(n int) Entry {
	return newEntry(2, n, "group", map[string]string{"groupType": "-2147483646", "sAMAccountType": "268435456", "description": "a group"})
}

func newEntry(kind byte, n int, name string, attributes map[string]string) Entry {
	name = fmt.Sprintf("%s%d", name, n)
	guid := make([]byte, 16)
	guid[0] = kind
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	sid := append([]byte{1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}, 0, 0, 0, kind)
	binary.LittleEndian.PutUint32(sid[12:], uint32(kind)<<24|uint32(n))
	attributes["name"], attributes["objectGUID"], attributes["objectSid"] = name, string(guid), string(sid)
	attributes["whenCreated"] = "20240101000000.0Z"
	return Entry{DN: "CN=" + name + "," + Base, Attributes: attributes}
}

// Users returns the first n users.
func Users(n int) []Entry { return first(n, User) }

// Groups returns the first n groups.
func Groups(n int) []Entry { return first(n, Group) }

func first(n int, entry func(int) Entry) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = entry(i)
	}
	return entries
}

// selectAttributes keeps the attributes with the given names.
func (e Entry) selectAttributes(names []string) RawEntry {
	out := RawEntry{DN: e.DN}
	for _, name := range names {
		if value, ok := e.Attributes[name]; ok {
			out.Attributes = append(out.Attributes, []string{name, value})
		}
	}
	return out
}

// Server is a domain controller with generated entries. It detects searches for groups by the
// text of the filter; otherwise it ignores filter, base and scope. It does not support delta
// syncs.
//
// The fields must not be changed during a search.
type Server struct {
	*Listener
	Users, Groups []Entry
	PlainLDAP     bool              // not a domain controller
	RootDSE       map[string]string // further or other attributes of the rootDSE; "": the attribute is missing
	Filtered      []string          // attributes that the schema excludes from read-only domain controllers
	BeforeEntry   func(n int) bool  // called before the n-th entry of a search; returns false to close the connection

	mu      sync.Mutex
	filters []string
}

// Start starts an empty domain controller on a loopback socket.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{}
	s.Listener = Serve(t, nil, s.serve)
	return s
}

// Filters returns the filters of all searches so far, except searches of single objects and
// those with a size limit of one entry.
func (s *Server) Filters() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.filters...)
}

func (s *Server) serve(p *Peer) {
	for {
		r, ok := p.Receive()
		if !ok {
			return
		}
		switch r.Operation {
		case Bind:
			code, text := ldap.LDAPResultSuccess, ""
			if r.BindDN != BindDN || r.Password != Password {
				code, text = ldap.LDAPResultInvalidCredentials, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1"
			}
			ok = p.Send(Result(r.ID, ldap.ApplicationBindResponse, code, "", text))
		case Search:
			ok = s.search(p, r)
		default:
			return
		}
		if !ok {
			return
		}
	}
}

func (s *Server) search(p *Peer, r Request) bool {
	switch {
	case r.Base == "":
		return p.Send(s.rootDSE().selectAttributes(r.Attributes).Message(r.ID), Done(r.ID, 0))
	case r.Scope == ldap.ScopeBaseObject: // no single object except the rootDSE
		return p.Send(Done(r.ID, 0))
	case r.SizeLimit > 0:
		return s.count(p, r)
	}
	start, _ := strconv.Atoi(string(r.Cookie))
	if start == 0 {
		s.mu.Lock()
		s.filters = append(s.filters, r.Filter)
		s.mu.Unlock()
	}
	if strings.Contains(r.Filter, "attributeSchema") {
		var answer []byte
		for _, name := range s.Filtered {
			answer = append(answer, NewEntry("CN="+name+","+r.Base, []string{"lDAPDisplayName", name}).Message(r.ID)...)
		}
		return p.Send(answer, Done(r.ID, 0, Paging("")))
	}
	entries := s.entries(r.Filter)
	sent, end := s.BeforeEntry, min(start+int(r.PageSize), len(entries))
	for i, e := range entries[start:end] {
		if sent != nil && !sent(start+i) || !p.Send(e.selectAttributes(r.Attributes).Message(r.ID)) {
			return false
		}
	}
	cookie := ""
	if end < len(entries) {
		cookie = strconv.Itoa(end)
	}
	return p.Send(Done(r.ID, 0, Paging(cookie)))
}

// presence matches a condition of a filter that an attribute exists.
var presence = regexp.MustCompile(`\(([\w-]+)=\*\)`)

// count returns entries, up to the size limit, that have all attributes that the filter names in
// conditions such as (mail=*).
func (s *Server) count(p *Peer, r Request) bool {
	var answer []byte
	found := int64(0)
	conditions := presence.FindAllStringSubmatch(r.Filter, -1)
	for _, e := range s.entries(r.Filter) {
		if !slices.ContainsFunc(conditions, func(c []string) bool { return e.Attributes[c[1]] == "" }) {
			answer = append(answer, NewEntry(e.DN).Message(r.ID)...)
			if found++; found == r.SizeLimit {
				return p.Send(answer, Done(r.ID, ldap.LDAPResultSizeLimitExceeded))
			}
		}
	}
	return p.Send(answer, Done(r.ID, 0))
}

// entries returns the entries of the kind that a filter searches for.
func (s *Server) entries(filter string) []Entry {
	if strings.Contains(strings.ToLower(filter), "group") {
		return s.Groups
	}
	return s.Users
}

func (s *Server) rootDSE() Entry {
	root := map[string]string{"defaultNamingContext": Base, "dnsHostName": "dc1.corp.example.com"}
	if !s.PlainLDAP {
		root["dsServiceName"], root["highestCommittedUSN"] = "CN=NTDS Settings,CN=DC1", "12345"
	}
	for name, value := range s.RootDSE {
		if root[name] = value; value == "" {
			delete(root, name)
		}
	}
	return Entry{Attributes: root}
}
