// Package ldaptest is a directory for tests: an LDAP server in the process that
// answers a bind, the rootDSE and paged searches from canned entries.
//
// It tells users and groups apart by the filter's text and applies nothing else of
// it, nor base and scope. Its changes cannot be followed, so every run is a full
// pass. It is no model of a domain controller.
package ldaptest

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// The account that may bind, and the base context.
const (
	BindDN   = "CN=svc,DC=corp,DC=example,DC=com"
	Password = "Pa55w0rd!"
	Base     = "DC=corp,DC=example,DC=com"
)

// Entry is a DN and its attributes.
type Entry struct {
	DN         string
	Attributes map[string]string
}

// User is the n-th user.
func User(n int) Entry {
	return entry(1, n, "user", map[string]string{
		"mail": fmt.Sprintf("user%d@corp.example.com", n), "userAccountControl": "512", "whenCreated": "20240101000000.0Z",
	})
}

// group is the n-th group.
func group(n int) Entry {
	return entry(2, n, "group", map[string]string{"groupType": "-2147483646", "description": "a group"})
}

func entry(kind byte, n int, name string, attributes map[string]string) Entry {
	name = fmt.Sprintf("%s%d", name, n)
	guid := make([]byte, 16)
	guid[0] = kind
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	sid := append([]byte{1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}, 0, 0, 0, kind)
	binary.LittleEndian.PutUint32(sid[12:], uint32(kind)<<24|uint32(n))
	attributes["name"], attributes["objectGUID"], attributes["objectSid"] = name, string(guid), string(sid)
	return Entry{DN: "CN=" + name + "," + Base, Attributes: attributes}
}

// Users are the first n users.
func Users(n int) []Entry { return list(n, User) }

// Groups are the first n groups.
func Groups(n int) []Entry { return list(n, group) }

func list(n int, of func(int) Entry) []Entry {
	all := make([]Entry, n)
	for i := range all {
		all[i] = of(i)
	}
	return all
}

// Server serves until the test ends. Its fields must not be changed during a search.
type Server struct {
	Port          int
	Users, Groups []Entry
	Plain         bool             // is no domain controller
	Sent          func(n int) bool // called before the n-th entry of a search; false cuts the connection

	mu      sync.Mutex
	filters []string
	binds   int
}

// Start starts a domain controller on loopback.
func Start(t testing.TB) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Port: listener.Addr().(*net.TCPAddr).Port}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := make(chan struct{})
			serving.Go(func() {
				defer close(stop)
				defer conn.Close()
				s.serve(conn)
			})
			serving.Go(func() {
				select {
				case <-t.Context().Done():
					conn.Close()
				case <-stop:
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return s
}

// Filters are those of the searches so far, rootDSE excepted.
func (s *Server) Filters() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.filters...)
}

// Binds is how many there were, refused ones included.
func (s *Server) Binds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.binds
}

func (s *Server) serve(conn net.Conn) {
	for {
		message, err := ber.ReadPacket(conn)
		if err != nil || len(message.Children) < 2 {
			return
		}
		id, operation := message.Children[0].Value.(int64), message.Children[1]
		switch int(operation.Tag) {
		case ldap.ApplicationBindRequest:
			s.mu.Lock()
			s.binds++
			s.mu.Unlock()
			code, words := ldap.LDAPResultSuccess, ""
			if operation.Children[1].Value != BindDN || operation.Children[2].Data.String() != Password {
				code, words = ldap.LDAPResultInvalidCredentials, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1"
			}
			err = send(conn, id, result(ldap.ApplicationBindResponse, uint16(code), words), nil)
		case ldap.ApplicationSearchRequest:
			err = s.search(conn, id, message)
		default:
			return
		}
		if err != nil {
			return
		}
	}
}

func (s *Server) search(conn net.Conn, id int64, message *ber.Packet) error {
	operation := message.Children[1]
	var names []string
	for _, name := range operation.Children[7].Children {
		names = append(names, name.Value.(string))
	}
	if operation.Children[0].Value == "" {
		if err := send(conn, id, encode(s.rootDSE(), names), nil); err != nil {
			return err
		}
		return send(conn, id, result(ldap.ApplicationSearchResultDone, 0, ""), nil)
	}
	if operation.Children[1].Value == int64(ldap.ScopeBaseObject) { // of the domain controller's own objects there is none
		return send(conn, id, result(ldap.ApplicationSearchResultDone, 0, ""), nil)
	}
	filter, _ := ldap.DecompileFilter(operation.Children[6])
	size, start := 0, 0
	for _, control := range message.Children[2].Children {
		if control.Children[0].Value == ldap.ControlTypePaging {
			value := ber.DecodePacket(control.Children[len(control.Children)-1].Data.Bytes())
			size = int(value.Children[0].Value.(int64))
			start, _ = strconv.Atoi(value.Children[1].Data.String())
		}
	}
	s.mu.Lock()
	if start == 0 {
		s.filters = append(s.filters, filter)
	}
	entries, sent := s.Users, s.Sent
	if strings.Contains(strings.ToLower(filter), "group") {
		entries = s.Groups
	}
	s.mu.Unlock()
	end := min(start+size, len(entries))
	for i, e := range entries[start:end] {
		if sent != nil && !sent(start+i) {
			return net.ErrClosed
		}
		if err := send(conn, id, encode(e, names), nil); err != nil {
			return err
		}
	}
	paging := ldap.NewControlPaging(0)
	if end < len(entries) {
		paging.SetCookie([]byte(strconv.Itoa(end)))
	}
	return send(conn, id, result(ldap.ApplicationSearchResultDone, 0, ""), paging)
}

func (s *Server) rootDSE() Entry {
	root := map[string]string{"defaultNamingContext": Base, "dnsHostName": "dc1.corp.example.com"}
	if !s.Plain {
		root["dsServiceName"], root["highestCommittedUSN"] = "CN=NTDS Settings,CN=DC1", "12345"
	}
	return Entry{Attributes: root}
}

func encode(e Entry, names []string) *ber.Packet {
	packet := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	packet.AppendChild(octets(e.DN))
	attributes := ber.NewSequence("")
	for _, name := range names {
		value, there := e.Attributes[name]
		if !there {
			continue
		}
		attribute, set := ber.NewSequence(""), ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		set.AppendChild(octets(value))
		attribute.AppendChild(octets(name))
		attribute.AppendChild(set)
		attributes.AppendChild(attribute)
	}
	packet.AppendChild(attributes)
	return packet
}

func result(tag ber.Tag, code uint16, words string) *ber.Packet {
	packet := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	packet.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), ""))
	packet.AppendChild(octets(""))
	packet.AppendChild(octets(words))
	return packet
}

func octets(value string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, value, "")
}

func send(conn net.Conn, id int64, operation *ber.Packet, control ldap.Control) error {
	message := ber.NewSequence("")
	message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	message.AppendChild(operation)
	if control != nil {
		controls := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		controls.AppendChild(control.Encode())
		message.AppendChild(controls)
	}
	_, err := conn.Write(message.Bytes())
	return err
}
