package directory

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
)

// userSearch is the search of most tests.
var userSearch = Search{Base: "OU=People,DC=corp", Scope: Subtree, Filter: "(objectClass=user)", Attributes: []string{"cn", "mail", "objectGUID"}}

// collect appends the DNs of entries to delivered.
func collect(delivered *string) func(*ad.Entry) error {
	return func(e *ad.Entry) error {
		*delivered += string(e.DN) + " "
		return nil
	}
}

// format returns the DN and the values of an entry.
func format(e *ad.Entry) string {
	return fmt.Sprintf("%s %q", e.DN, e.Values)
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	user := func(n int) fakeldap.RawEntry {
		return fakeldap.NewEntry(fmt.Sprintf("CN=%d", n), []string{"cn", fmt.Sprint(n)})
	}
	var thousand, rest []fakeldap.RawEntry
	for n := range 1000 {
		thousand = append(thousand, user(n))
	}
	for n := 1000; n < 1234; n++ {
		rest = append(rest, user(n))
	}
	for _, test := range []struct {
		name  string
		pages [][]fakeldap.RawEntry
	}{
		{"no entry", [][]fakeldap.RawEntry{{}}},
		{"one entry", [][]fakeldap.RawEntry{{user(0)}}},
		{"two pages", [][]fakeldap.RawEntry{thousand, rest}},
		{"empty page between", [][]fakeldap.RawEntry{thousand, {}, rest}},
		{"empty page at the end", [][]fakeldap.RawEntry{thousand, {}}},
	} {
		for _, chunkSize := range []int{1, 200, 0} { // one entry, some entries, the default
			t.Run(fmt.Sprintf("%s, chunks of %d bytes", test.name, chunkSize), func(t *testing.T) {
				pages := fakeldap.Pages(test.pages...)
				server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
					if !r.Paged || r.PageSize != 500 || r.Base != userSearch.Base || !slices.Equal(r.Attributes, userSearch.Attributes) {
						t.Errorf("request %+v", r)
					}
					return pages(p, r)
				}))
				o := options(server)
				o.PageSize, o.chunkSize = 500, chunkSize
				n := 0
				got, err := connect(t, o).Search(t.Context(), userSearch, func(e *ad.Entry) error {
					if string(e.DN) != fmt.Sprintf("CN=%d", n) || string(e.First(0)) != fmt.Sprint(n) {
						t.Errorf("entry %d is %s", n, format(e))
					}
					n++
					return nil
				})
				if err != nil || got != len(test.pages) {
					t.Errorf("%d pages, want %d, %v", got, len(test.pages), err)
				}
				if want := len(slices.Concat(test.pages...)); n != want {
					t.Errorf("%d entries, want %d", n, want)
				}
			})
		}
	}
}

func TestSearchSlots(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{
		fakeldap.NewEntry("CN=in order", []string{"cn", "a"}, []string{"mail", "m1", "m2"}, []string{"objectGUID", "\x00\xff"}),
		fakeldap.NewEntry("CN=other order", []string{"objectGUID", "g"}, []string{"cn", "b"}, []string{"mail", "m"}),
		fakeldap.NewEntry("CN=other case", []string{"CN", "c"}, []string{"MAIL", "m"}, []string{"objectguid", "g"}),
		fakeldap.NewEntry("CN=attributes missing", []string{"mail", "m"}),
		fakeldap.NewEntry("CN=not requested", []string{"sn", "x"}, []string{"cn", "e"}, []string{"cnx", "x"}, []string{"c", "x"}, []string{"cn;lang-de", "x"}, []string{"", "x"}),
		fakeldap.NewEntry("CN=no values", []string{"cn"}, []string{"mail", ""}),
		fakeldap.NewEntry("CN=repeated", []string{"cn", "g1", "g2"}, []string{"mail", "m"}, []string{"CN", "g3"}),
		fakeldap.NewEntry("CN=Ülkü\\, K\x00"),
		fakeldap.NewEntry("", []string{"cn", strings.Repeat("x", 1<<20)}),
	})))
	want := []string{
		`CN=in order [["a"] ["m1" "m2"] ["\x00\xff"]]`,
		`CN=other order [["b"] ["m"] ["g"]]`,
		`CN=other case [["c"] ["m"] ["g"]]`,
		`CN=attributes missing [[] ["m"] []]`,
		`CN=not requested [["e"] [] []]`,
		`CN=no values [[] [""] []]`,
		`CN=repeated [["g1" "g2" "g3"] ["m"] []]`,
		"CN=Ülkü\\, K\x00 [[] [] []]",
		` [["` + strings.Repeat("x", 1<<20) + `"] [] []]`,
	}
	var got []string
	if _, err := connect(t, options(server)).Search(t.Context(), userSearch, func(e *ad.Entry) error {
		got = append(got, format(e))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for n := range max(len(got), len(want)) {
		if n >= len(got) || n >= len(want) || got[n] != want[n] {
			t.Fatalf("entry %d: %.200v, want %.200v", n, got[n:], want[n:])
		}
	}
}

// TestEndlessReferences checks that a search ends when the server sends references without end.
func TestEndlessReferences(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		packet := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
		packet.AppendChild(fakeldap.OctetString("ldap://other.test/" + strings.Repeat("x", 1000)))
		message := fakeldap.Message(r.ID, packet)
		for p.Send(message) {
		}
		return false
	}))
	_, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(new(string)))
	if !errors.Is(err, errTooLarge) || fault.ClassOf(err) != fault.Incomplete {
		t.Errorf("error %v", err)
	}
}

// TestSearchIgnoresOtherMessages checks that references, notifications and messages with other
// IDs are ignored.
func TestSearchIgnoresOtherMessages(t *testing.T) {
	t.Parallel()
	reference := func(id int64) []byte {
		r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
		r.AppendChild(fakeldap.OctetString("ldap://other.test/DC=other"))
		return fakeldap.Message(id, r)
	}
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(
			reference(r.ID),
			fakeldap.NewEntry("CN=foreign").Message(r.ID-1), fakeldap.NewEntry("CN=foreign").Message(r.ID+1), fakeldap.NewEntry("CN=foreign").Message(0),
			fakeldap.Done(r.ID-1, 0, fakeldap.Paging("")), fakeldap.Done(r.ID+1, 0, fakeldap.Paging("")),
			[]byte("\x30\x0b\x02\x01\x00\x78\x06\x8a\x04x.y."), // unknown notification
			fakeldap.NewEntry("CN=a").Message(r.ID),
			reference(r.ID), fakeldap.Message(r.ID, ber.Encode(ber.ClassApplication, ber.TypeConstructed, 25, nil, "")), // intermediate response
			fakeldap.NewEntry("CN=b").Message(r.ID), reference(r.ID),
			fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	var delivered string
	if _, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(&delivered)); err != nil || delivered != "CN=a CN=b " {
		t.Errorf("%q, %v", delivered, err)
	}
}

func TestConsecutiveSearches(t *testing.T) {
	t.Parallel()
	pages := fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry("CN=a", []string{"cn", "a"})}, []fakeldap.RawEntry{fakeldap.NewEntry("CN=b")})
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if !r.Paged {
			return p.Send(fakeldap.NewEntry("CN=small", []string{"cn", "x"}).Message(r.ID), fakeldap.Done(r.ID, 0))
		}
		if r.Base == "CN=nowhere" {
			return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultNoSuchObject))
		}
		return pages(p, r)
	}))
	session := connect(t, options(server))
	baseSearch := ldap.NewSearchRequest("CN=x", ldap.ScopeBaseObject, 0, 0, 0, false, "(cn=*)", []string{"cn"}, nil)
	for n := range 5 {
		var delivered string
		if pages, err := session.Search(t.Context(), userSearch, collect(&delivered)); err != nil || pages != 2 || delivered != "CN=a CN=b " {
			t.Fatalf("search %d: %d pages, %q, %v", n, pages, delivered, err)
		}
		if got, err := session.conn.Search(baseSearch); err != nil || len(got.Entries) != 1 || got.Entries[0].GetAttributeValue("cn") != "x" {
			t.Fatalf("base search %d: %v, %v", n, got, err)
		}
		if _, err := session.Search(t.Context(), Search{Base: "CN=nowhere", Filter: "(cn=*)"}, collect(&delivered)); err == nil {
			t.Fatal("no error")
		}
		if _, err := session.Search(t.Context(), Search{Filter: "(cn=*"}, collect(&delivered)); err == nil {
			t.Fatal("no error")
		}
	}
}

func TestSearchInvalidFilter(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	_, err := connect(t, options(server)).Search(t.Context(), Search{Base: "DC=corp", Filter: "(cn=*"}, collect(new(string)))
	wantFailure(t, err, fault.Error{Class: fault.Refused, Object: "search filter (cn=*"}, nil, "ldap.user-filter", "ldap.group-filter")
}

func TestSearchResultCodes(t *testing.T) {
	t.Parallel()
	anyRemedy := []string{faulttest.AnyRemedy}
	for _, test := range []struct {
		name    string
		code    int
		matched string
		class   fault.Class
		cause   error    // nil: an LDAP result
		remedy  []string // parts of the remedy
	}{
		{"time limit", 3, "", fault.Incomplete, nil, []string{"ldap.page-size"}},
		{"size limit", 4, "", fault.Incomplete, nil, []string{"ldap.page-size"}},
		{"referral", 10, "", fault.Refused, nil, []string{"domain controller"}},
		{"admin limit", 11, "", fault.Incomplete, nil, []string{"ldap.page-size"}},
		{"cookie expired", 12, "", fault.Transient, errSearchDropped, []string{"MaxConnIdleTime", "MaxResultSetsPerConn"}},
		{"cookie evicted", 53, "", fault.Transient, errSearchDropped, []string{"MaxConnIdleTime", "MaxResultSetsPerConn"}},
		{"inappropriate matching", 18, "", fault.Transient, nil, anyRemedy},
		{"no such base", 32, "DC=corp\n", fault.Refused, ErrNoSuchObject, nil},
		{"no such base, no matched DN", 32, "", fault.Refused, ErrNoSuchObject, nil},
		{"invalid base DN", 34, "", fault.Refused, ErrNoSuchObject, nil},
		{"inappropriate authentication", 48, "", fault.Refused, nil, []string{"read access"}},
		{"insufficient access rights", 50, "", fault.Refused, nil, []string{"read access"}},
		{"busy", 51, "", fault.Transient, nil, anyRemedy},
		{"unavailable", 52, "", fault.Transient, nil, anyRemedy},
		{"other", 80, "", fault.Transient, nil, anyRemedy},
		{"unknown", 199, "", fault.Transient, nil, anyRemedy},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := true
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				if first {
					first = false
					return p.Send(fakeldap.NewEntry("CN=a").Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("more")))
				}
				return p.Send(fakeldap.NewEntry("CN=b").Message(r.ID),
					fakeldap.Result(r.ID, ldap.ApplicationSearchResultDone, test.code, test.matched, "server text\x00", fakeldap.Paging("")))
			}))
			var delivered string
			pages, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(&delivered))
			wantFailure(t, err, searchFault(server, test.class), test.cause, test.remedy...)
			if !errors.Is(test.cause, errSearchDropped) {
				if result := wantResult(t, err, test.code); result.matched != strings.TrimSpace(test.matched) {
					t.Errorf("matched DN %q, want %q", result.matched, test.matched)
				}
			}
			if pages != 1 || delivered != "CN=a CN=b " {
				t.Errorf("%d pages, %q", pages, delivered)
			}
		})
	}
}

func TestSearchPagingUnsupported(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(fakeldap.Result(r.ID, ldap.ApplicationSearchResultDone, 12, "", "server text\x00", fakeldap.Paging("")))
	}))
	var delivered string
	_, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(&delivered))
	wantFailure(t, err, searchFault(server, fault.Refused), nil, "RFC 2696")
	wantResult(t, err, 12)
}

// TestSearchIncompleteOrMalformed checks that responses which are malformed, too large or not
// provably complete fail a search.
func TestSearchIncompleteOrMalformed(t *testing.T) {
	t.Parallel()
	size, protocol, log := []string{"size"}, []string{"ldap.host", "ldap.port", "ldap.protocol"}, []string{"log"}
	nested := func(depth int) []byte {
		inner := []byte{tagOctetString, 0}
		for range depth {
			inner = slices.Concat([]byte{tagSequence, 0x82, byte(len(inner) >> 8), byte(len(inner))}, inner)
		}
		return inner
	}
	wrap := func(id int64, operation []byte) []byte {
		body := slices.Concat([]byte{tagInteger, 1, byte(id)}, operation)
		return slices.Concat([]byte{tagSequence, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
	}
	for _, test := range []struct {
		name     string
		response func(id int64) []byte
		cause    error
		remedy   []string // parts of the remedy
	}{
		{"no paging control", func(id int64) []byte { return fakeldap.Done(id, 0) }, errNoPagingControl, []string{"RFC 2696"}},
		{"other controls only", func(id int64) []byte { return fakeldap.Done(id, 0, ldap.NewControlString("1.2.3", false, "")) }, errNoPagingControl, []string{"RFC 2696"}},
		{"malformed paging control", func(id int64) []byte {
			return fakeldap.Done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, "\x30\x05\x02\x01"))
		}, errMalformed, protocol},
		{"paging control without a cookie", func(id int64) []byte {
			return fakeldap.Done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, "\x30\x03\x02\x01\x00"))
		}, errMalformed, protocol},
		{"paging control without a value", func(id int64) []byte {
			return fakeldap.Done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, ""))
		}, errMalformed, protocol},
		{"paging control with a text as the size", func(id int64) []byte {
			return fakeldap.Done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, "\x30\x05\x04\x01x\x04\x00"))
		}, errMalformed, protocol},
		{"empty result", func(id int64) []byte { return wrap(id, []byte("\x65\x00")) }, errMalformed, protocol},
		{"1 GiB announced", func(int64) []byte { return []byte("\x30\x84\x40\x00\x00\x00\x02") }, errTooLarge, size},
		{"4 GiB announced", func(int64) []byte { return []byte("\x30\x84\xff\xff\xff\xff\x02") }, errTooLarge, size},
		{"more than 4 GiB announced", func(int64) []byte { return []byte("\x30\x85\x01\x00\x00\x00\x00\x02") }, errMalformed, protocol},
		{"indefinite length", func(int64) []byte { return []byte("\x30\x80\x02\x01\x03\x65\x00\x00\x00") }, errMalformed, protocol},
		{"indefinite length in an entry", func(id int64) []byte { return wrap(id, []byte("\x64\x80\x04\x00\x30\x00\x00\x00")) }, errMalformed, log},
		{"wrong message tag", func(int64) []byte { return []byte("\x31\x03\x02\x01\x03") }, errMalformed, protocol},
		{"no message ID", func(int64) []byte { return []byte("\x30\x02\x64\x00") }, errMalformed, protocol},
		{"no operation", func(int64) []byte { return []byte("\x30\x03\x02\x01\x03") }, errMalformed, protocol},
		{"empty message", func(int64) []byte { return []byte("\x30\x00") }, errMalformed, protocol},
		{"deep nesting in a result", func(id int64) []byte { return wrap(id, append([]byte{0x65, 0x82, 0x06, 0x42}, nested(400)...)) }, errMalformed, protocol},
		{"20 levels of nesting in a result", func(id int64) []byte {
			return wrap(id, append([]byte("\x65\x59\x0a\x01\x00\x04\x00\x04\x00"), nested(20)...))
		}, errMalformed, protocol},
		{"deep nesting in controls", func(id int64) []byte {
			return wrap(id, append([]byte{0x65, 0, 0xa0, 0x82, 0x06, 0x42}, nested(400)...))
		}, errMalformed, protocol},
		{"deep nesting in an entry", func(id int64) []byte { return wrap(id, append([]byte{0x64, 0x82, 0x06, 0x42}, nested(400)...)) }, errMalformed, log},
		{"huge result", func(id int64) []byte {
			return fakeldap.Result(id, ldap.ApplicationSearchResultDone, 0, "", strings.Repeat("x", maxForwarded), fakeldap.Paging(""))
		}, errTooLarge, size},
		{"endless intermediate responses", func(id int64) []byte {
			return bytes.Repeat(fakeldap.Result(id, 25, 0, "", strings.Repeat("x", 1000)), maxForwarded/1000)
		}, errTooLarge, size},
		{"entry with another tag class", func(id int64) []byte {
			return slices.Concat(wrap(id, []byte("\xa4\x08\x04\x04CN=x\x30\x00")), fakeldap.Done(id, 0, fakeldap.Paging("")))
		}, errMalformed, log},
		{"entry without an attribute list", func(id int64) []byte { return wrap(id, []byte("\x64\x03\x04\x01x")) }, errMalformed, log},
		{"DN with the wrong tag", func(id int64) []byte { return wrap(id, []byte("\x64\x05\x0c\x01x\x30\x00")) }, errMalformed, log},
		{"attribute with the wrong tag", func(id int64) []byte { return wrap(id, []byte("\x64\x07\x04\x01x\x30\x02\x31\x00")) }, errMalformed, log},
		{"attribute without a value set", func(id int64) []byte {
			return wrap(id, []byte("\x64\x0b\x04\x01x\x30\x06\x30\x04\x04\x02cn"))
		}, errMalformed, log},
		{"value with the wrong tag", func(id int64) []byte {
			return wrap(id, []byte("\x64\x10\x04\x01x\x30\x0b\x30\x09\x04\x02cn\x31\x03\x02\x01x"))
		}, errMalformed, log},
		{"value longer than its set", func(id int64) []byte {
			return wrap(id, []byte("\x64\x10\x04\x01x\x30\x0b\x30\x09\x04\x02cn\x31\x03\x04\x02x"))
		}, errMalformed, log},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
					p.Send(fakeldap.NewEntry("CN=a").Message(r.ID), test.response(r.ID))
					p.Hang()
					return false
				}))
				_, err := connect(t, o).Search(t.Context(), userSearch, collect(new(string)))
				wantFailure(t, err, searchFault(server, fault.Incomplete), test.cause, test.remedy...)
			})
		})
	}
}

// TestEntriesAfterResult checks that entries after the end of a search are not counted and
// end the session.
func TestEntriesAfterResult(t *testing.T) {
	t.Parallel()
	entry := fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", 10_000)})
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		for p.Send(entry.Message(r.ID)) {
		}
		return false
	}))
	session := connect(t, options(server))
	var delivered string
	if _, err := session.Search(t.Context(), userSearch, collect(&delivered)); err != nil || delivered != "" {
		t.Fatalf("%q, %v", delivered, err)
	}
	_, err := session.Search(t.Context(), userSearch, collect(&delivered))
	if !errors.Is(err, errMalformed) || delivered != "" {
		t.Errorf("%q, %v", delivered, err)
	}
}

// TestPagesWithoutProgress checks that a search ends when the server sends pages without end,
// and that a search with many empty pages does not.
func TestPagesWithoutProgress(t *testing.T) {
	t.Parallel()
	name := func(n int) string { return fmt.Sprintf("CN=%d", n) }
	for _, test := range []struct {
		name    string
		entries func(page int) []string // DNs
		end     int                     // number of pages; 0: endless
		pages   int                     // complete pages when the search fails; 0: it succeeds
	}{
		{"empty pages", func(int) []string { return nil }, 0, maxPagesWithoutNew},
		{"the same page", func(int) []string { return []string{"CN=a", "CN=b"} }, 0, maxPagesWithoutNew + 1},
		{"alternating pages", func(page int) []string { return []string{name(page % 2)} }, 0, maxPagesWithoutNew + 2},
		{"a new entry in the last page allowed", func(page int) []string {
			return map[bool][]string{true: {name(page)}}[page%maxPagesWithoutNew == maxPagesWithoutNew-1]
		}, 3 * maxPagesWithoutNew, 0},
		{"one new entry a page", func(page int) []string { return []string{name(page)} }, 2 * maxPagesWithoutNew, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			page := 0
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				for _, dn := range test.entries(page) {
					p.Send(fakeldap.NewEntry(dn).Message(r.ID))
				}
				page++
				cookie := "same" // Samba repeats its cookie
				if page == test.end {
					cookie = ""
				}
				return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging(cookie)))
			}))
			pages, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(new(string)))
			switch {
			case test.pages == 0 && (err != nil || pages != test.end):
				t.Errorf("%d pages, %v", pages, err)
			case test.pages > 0 && (!errors.Is(err, errNoNewEntries) || fault.ClassOf(err) != fault.Incomplete || pages != test.pages):
				t.Errorf("%d pages, %v", pages, err)
			}
		})
	}
}

// TestPageWithoutEnd checks that a page that repeats its entries without end fails.
func TestPageWithoutEnd(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		entries := bytes.Repeat(fakeldap.NewEntry("CN=a", []string{"cn", "a"}).Message(r.ID), 1000)
		for p.Write(entries) {
		}
		return false
	}))
	o := options(server)
	o.chunkSize = 0
	n := 0
	_, err := connect(t, o).Search(t.Context(), userSearch, func(*ad.Entry) error {
		n++
		return nil
	})
	wantFailure(t, err, searchFault(server, fault.Incomplete), errNoNewEntries, faulttest.AnyRemedy)
	if n > maxEntriesWithoutNew {
		t.Errorf("%d entries", n)
	}
}

// TestTooManyEntries checks that a search ends if the server invents entries without end.
func TestTooManyEntries(t *testing.T) {
	t.Parallel()
	sent := 0
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		for range 10 {
			sent++
			p.Send(fakeldap.NewEntry(fmt.Sprint("CN=", sent)).Message(r.ID))
		}
		return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("next")))
	}))
	o := options(server)
	o.maxEntries = 1234
	n := 0
	_, err := connect(t, o).Search(t.Context(), userSearch, func(*ad.Entry) error {
		n++
		return nil
	})
	wantFailure(t, err, searchFault(server, fault.Incomplete), errTooManyEntries, "profile.baseContext")
	if n != o.maxEntries || !strings.Contains(err.Error(), "1234") {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestLargeMessageBesidesEntries checks that a large message that is no entry of the search
// fails before its bytes are read.
func TestLargeMessageBesidesEntries(t *testing.T) {
	t.Parallel()
	for name, message := range map[string]func(id int64) []byte{
		"result": func(id int64) []byte {
			return fakeldap.Result(id, ldap.ApplicationSearchResultDone, 0, "", strings.Repeat("x", 1<<20))
		},
		"reference": func(id int64) []byte { return fakeldap.Message(id, longReference()) },
		"entry of a different search": func(id int64) []byte {
			return fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", 1<<20)}).Message(id + 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				p.Write(message(r.ID)[:100])
				p.Hang() // the rest never comes
				return false
			}))
			_, err := connect(t, options(server)).Search(t.Context(), userSearch, collect(new(string)))
			wantFailure(t, err, searchFault(server, fault.Incomplete), errTooLarge, faulttest.AnyRemedy)
		})
	}
}

// longReference encodes a SearchResultReference of 1 MiB.
func longReference() *ber.Packet {
	reference := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
	reference.AppendChild(fakeldap.OctetString("ldap://" + strings.Repeat("x", 1<<20)))
	return reference
}

// TestUnprintableText checks that a server's text in an error has no character that a
// terminal obeys.
func TestUnprintableText(t *testing.T) {
	t.Parallel()
	const text = "a\x1b]0;title\x07\u202egnp.exe\u2028\x00"
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(fakeldap.Result(r.ID, ldap.ApplicationSearchResultDone, ldap.LDAPResultNoSuchObject, text, text))
	}))
	session := connect(t, options(server))
	for _, q := range []Search{userSearch, {Base: "DC=\u202e\n", Filter: userSearch.Filter}} {
		_, err := session.Search(t.Context(), q, collect(new(string)))
		if i := strings.IndexFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !errors.Is(err, ErrNoSuchObject) {
			t.Errorf("unprintable character at %d of %q", i, err)
		}
	}
	certificate := &x509.Certificate{Subject: pkix.Name{CommonName: text}, DNSNames: []string{text}}
	if names := CertificateNames(certificate); strings.ContainsFunc(names, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("unprintable character in %q", names)
	}
}

// TestSample checks that repeated entries are never new, and that new ones are detected
// beyond the exact part of the sample.
func TestSample(t *testing.T) {
	t.Parallel()
	s := newSample()
	const entries = 4 * exactSample
	isNew := func() (count int) {
		for n := range entries {
			if s.add(fmt.Appendf(nil, "CN=user%d,DC=corp", n)) {
				count++
			}
		}
		return count
	}
	if first := isNew(); first < exactSample+2*exactSample/sampleRate || first > exactSample+4*exactSample/sampleRate {
		t.Errorf("%d of %d entries in the sample", first, entries)
	}
	if again := isNew(); again != 0 {
		t.Errorf("%d repeated entries are new", again)
	}
}

// endlessEntries returns a script that sends large entries until the connection is closed.
func endlessEntries() func(p *fakeldap.Peer) {
	return fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		m := fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", 8<<10)}).Message(r.ID)
		for p.Send(m) {
		}
		return false
	})
}

func TestConsumerStops(t *testing.T) {
	t.Parallel()
	errStop := errors.New("stop")
	for name, wait := range map[string]func(){
		"while entries are received": func() {},
		"while reading is blocked":   synctest.Wait,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, o := inMemory(t, endlessEntries())
				session := connect(t, o)
				n := 0
				_, err := session.Search(t.Context(), userSearch, func(*ad.Entry) error {
					if n++; n < 100 {
						return nil
					}
					wait()
					return errStop
				})
				if !errors.Is(err, errStop) || n != 100 {
					t.Errorf("%v after %d entries", err, n)
				}
				if _, err := session.Search(t.Context(), userSearch, collect(new(string))); err == nil {
					t.Error("the session is still usable")
				}
			})
		})
	}
}

// TestSearchAwaitsRequest checks that a search that its consumer stops does not return before the
// goroutine that requests its pages has ended.
func TestSearchAwaitsRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, o := inMemory(t, endlessEntries())
		ended := false
		o.OnRequest = func(request string, _ fault.Class, _ time.Duration) {
			if request == "search" {
				time.Sleep(time.Second) // fake time
				ended = true
			}
		}
		errStop := errors.New("stop")
		_, err := connect(t, o).Search(t.Context(), userSearch, func(*ad.Entry) error { return errStop })
		if !errors.Is(err, errStop) || !ended {
			t.Errorf("request ended: %t, error %v", ended, err)
		}
	})
}

// TestWriteAfterConsumerDone checks that the reading goroutine does not block forever after
// the consumer has stopped.
func TestWriteAfterConsumerDone(t *testing.T) {
	t.Parallel()
	s := newEntryStream(1)
	close(s.consumerDone)
	for range chunks + 1 {
		if err := s.write(make([]byte, defaultChunkSize)); errors.Is(err, errConsumerDone) {
			return
		}
	}
	t.Error("more writes than chunks succeeded")
}

func TestConsumerCanceled(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(ctx context.Context){
		"waits for the context": func(ctx context.Context) { <-ctx.Done() },
		"slow":                  func(context.Context) { time.Sleep(time.Minute) }, // fake time
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, o := inMemory(t, endlessEntries())
				session := connect(t, o)
				ctx, cancel := context.WithCancel(t.Context())
				entries := 0
				_, err := session.Search(ctx, userSearch, func(*ad.Entry) error {
					if entries++; entries == 10 {
						time.AfterFunc(time.Second, cancel)
						wait(ctx)
					}
					return nil
				})
				wantFailure(t, err, searchFault(server, fault.Canceled), context.Canceled)
				if entries != 10 {
					t.Errorf("%d entries, want 10", entries)
				}
			})
		})
	}
}

// TestCanceledAfterLastPage checks that a search is not complete if its context ends before the
// consumer has handled the last entries, although the server has sent all of them.
func TestCanceledAfterLastPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			for n := range chunks - 1 { // as many as are buffered
				if !p.Send(fakeldap.NewEntry(fmt.Sprint(n), []string{"cn", "x"}).Message(r.ID)) {
					return false
				}
			}
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}))
		ctx, cancel := context.WithCancel(t.Context())
		entries := 0
		pages, err := connect(t, o).Search(ctx, userSearch, func(*ad.Entry) error {
			if entries++; entries == 1 {
				synctest.Wait() // all is received
				cancel()
			}
			return nil
		})
		wantFailure(t, err, searchFault(server, fault.Canceled), context.Canceled)
		if entries != 1 || pages != 1 {
			t.Errorf("%d entries, %d pages", entries, pages)
		}
	})
}

// TestSlowConsumer checks that a slow consumer blocks the server and does not cause a timeout.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const entries = 64 // of 8 KiB each
		value := strings.Repeat("x", 8<<10)
		sent := 0
		_, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			for ; sent < entries; sent++ {
				if !p.Send(fakeldap.NewEntry(fmt.Sprint(sent), []string{"cn", value}).Message(r.ID)) {
					return false
				}
			}
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}))
		n := 0
		_, err := connect(t, o).Search(t.Context(), userSearch, func(e *ad.Entry) error {
			if n == 0 {
				time.Sleep(10 * maxWaits * o.ResponseTimeout) // fake time
				synctest.Wait()
				if sent == entries {
					t.Error("all entries were read ahead of the consumer")
				}
			}
			if string(e.DN) != fmt.Sprint(n) || len(e.First(0)) != len(value) {
				t.Errorf("entry %d is %s", n, e.DN)
			}
			n++
			return nil
		})
		if err != nil || n != entries {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

// TestSlowServer checks that a server which sends single bytes slowly causes a timeout, and
// that idle time before a request does not count.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	for _, slowBytes := range []int{1, 1000} {
		t.Run(fmt.Sprint(slowBytes, " slow bytes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
					message := fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", 1000)}).Message(r.ID)
					for _, b := range message[:slowBytes] {
						if !p.Send([]byte{b}) {
							return false
						}
						time.Sleep(defaultResponseTimeout / 10) // fake time
					}
					return p.Send(message[slowBytes:], fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
				}))
				session := connect(t, o)
				time.Sleep((maxWaits + 1) * o.ResponseTimeout) // idle
				start := time.Now()
				_, err := session.Search(t.Context(), userSearch, collect(new(string)))
				if slowBytes == 1 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantFailure(t, err, searchFault(server, fault.Transient), errTooSlow, "ldap.page-size")
				// The received bytes extend the limit a little.
				if took, limit := time.Since(start), maxWaits*o.ResponseTimeout; took < limit || took > limit+o.ResponseTimeout {
					t.Errorf("took %s, want %s to %s", took, limit, limit+o.ResponseTimeout)
				}
			})
		})
	}
}

// TestIdleConnection checks that the connection may be idle while the consumer is busy with
// entries that were already received.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, o := inMemory(t, fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry("CN=a")})))
		session := connect(t, o)
		for range 2 {
			if _, err := session.Search(t.Context(), userSearch, func(*ad.Entry) error {
				time.Sleep(10 * maxWaits * o.ResponseTimeout) // fake time
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// heapPeak returns the maximum heap growth during a search, measured at every eighth entry.
func heapPeak(t *testing.T, session *Session) (entries int, peak uint64, err error) {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	_, err = session.Search(t.Context(), userSearch, func(*ad.Entry) error {
		if entries++; entries%8 == 0 {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
		return nil
	})
	runtime.ReadMemStats(&m)
	return entries, max(peak, m.HeapAlloc) - min(before, m.HeapAlloc), err
}

// TestCampaignHugeEntriesInLittleMemory reads 1 GiB, or 128 MiB with -short.
func TestCampaignHugeEntriesInLittleMemory(t *testing.T) {
	entries := 1024
	if testing.Short() {
		entries = 128
	}
	m := fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", 1<<20)})
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		entry := m.Message(r.ID)
		for range entries {
			if !p.Send(entry) {
				return false
			}
		}
		return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	n, peak, err := heapPeak(t, connect(t, options(server)))
	if err != nil || n != entries {
		t.Fatalf("%d entries, %v", n, err)
	}
	t.Logf("%d entries of 1 MiB in %d KiB of heap", n, peak>>10)
	if peak > 64<<20 {
		t.Errorf("%d MiB of heap", peak>>20)
	}
}

// TestHugeEntriesInLittleMemory measures the live heap while two concurrent searches handle
// entries of 16 MB: one entry each, without a copy, and no second entry behind it.
func TestHugeEntriesInLittleMemory(t *testing.T) {
	const entries, size, searches = 3, 16_000_000, 2
	const messageID = 4 // after the bind, the rootDSE and the invocation ID
	message := fakeldap.NewEntry("CN=a", []string{"cn", strings.Repeat("x", size)}).Message(messageID)
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if r.ID != messageID {
			t.Errorf("message ID %d", r.ID)
		}
		for range entries {
			if !p.Write(message) {
				return false
			}
		}
		return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	var sessions [searches]*Session
	for n := range sessions {
		sessions[n] = connect(t, options(server))
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	var peak uint64
	var measure sync.Once
	var both, running sync.WaitGroup
	both.Add(searches)
	for _, session := range sessions {
		running.Go(func() {
			n := 0
			_, err := session.Search(t.Context(), userSearch, func(*ad.Entry) error {
				if n++; n == 2 { // both searches have one entry before and one after this one
					both.Done()
					both.Wait()
					measure.Do(func() { peak = live() })
				}
				return nil
			})
			if err != nil || n != entries {
				t.Errorf("%d entries, %v", n, err)
			}
			if n < 2 {
				both.Done()
			}
		})
	}
	running.Wait()
	grown := peak - before
	t.Logf("%d searches of entries of %d bytes: %d MiB of live heap", searches, size, grown>>20)
	if grown > searches*size*5/4 {
		t.Errorf("%d MiB of live heap", grown>>20)
	}
	runtime.KeepAlive(message)
	if now := live(); now > before+size/2 {
		t.Errorf("%d MiB still in use after the searches", (now-before)>>20)
	}
}

// TestManySmallElementsInLittleMemory checks that maxForwarded limits the memory of go-ldap's
// decoder, which takes a multiple of its input.
func TestManySmallElementsInLittleMemory(t *testing.T) {
	body := bytes.Repeat([]byte{tagOctetString, 1, 'x'}, (maxForwarded-100)/3)
	operation := slices.Concat([]byte{0x65, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		size := len(operation) + 3
		p.Send([]byte{tagSequence, 0x83, byte(size >> 16), byte(size >> 8), byte(size), tagInteger, 1, byte(r.ID)}, operation)
		p.Hang()
		return false
	}))
	_, peak, err := heapPeak(t, connect(t, options(server)))
	wantFailure(t, err, searchFault(server, fault.Incomplete), errMalformed, "ldap.protocol")
	t.Logf("%d KiB of heap for %d KiB of elements", peak>>10, len(body)>>10)
	if peak > 64<<20 {
		t.Errorf("%d MiB of heap", peak>>20)
	}
}
