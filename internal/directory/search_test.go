package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// people is the search of most tests.
var people = Search{Base: "OU=People,DC=corp", Scope: Subtree, Filter: "(objectClass=user)", Attributes: []string{"cn", "mail", "objectGUID"}}

// collect writes down the DNs that are delivered.
func collect(delivered *string) func(*ad.Entry) error {
	return func(e *ad.Entry) error {
		*delivered += string(e.DN) + " "
		return nil
	}
}

// dump writes down an entry as it stands.
func dump(e *ad.Entry) string {
	return fmt.Sprintf("%s %q", e.DN, e.Values)
}

func TestSearchPages(t *testing.T) {
	user := func(n int) fakeEntry { return fakeEntry{fmt.Sprintf("CN=%d", n), [][]string{{"cn", fmt.Sprint(n)}}} }
	var thousand, rest []fakeEntry
	for n := range 1000 {
		thousand = append(thousand, user(n))
	}
	for n := 1000; n < 1234; n++ {
		rest = append(rest, user(n))
	}
	for _, test := range []struct {
		name  string
		pages [][]fakeEntry
	}{
		{"nothing", [][]fakeEntry{{}}},
		{"one entry", [][]fakeEntry{{user(0)}}},
		{"two pages", [][]fakeEntry{thousand, rest}},
		{"an empty page between", [][]fakeEntry{thousand, {}, rest}},
		{"an empty page at the end", [][]fakeEntry{thousand, {}}},
	} {
		for _, chunk := range []int{1, 200, 0} { // an entry, some, and as ever
			t.Run(fmt.Sprintf("%s, chunks of %d", test.name, chunk), func(t *testing.T) {
				pages := pagesOf(test.pages...)
				server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
					if !r.paged || r.pageSize != 500 || r.base != people.Base || !slices.Equal(r.attributes, people.Attributes) {
						t.Errorf("asked for %+v", r)
					}
					return pages(p, r)
				}))
				o := server.options()
				o.PageSize, o.chunkSize = 500, chunk
				n := 0
				got, err := connect(t, o).Search(t.Context(), people, func(e *ad.Entry) error {
					if string(e.DN) != fmt.Sprintf("CN=%d", n) || string(e.First(0)) != fmt.Sprint(n) {
						t.Errorf("entry %d is %s", n, dump(e))
					}
					n++
					return nil
				})
				if err != nil || got != len(test.pages) {
					t.Errorf("%d pages of %d, %v", got, len(test.pages), err)
				}
				if want := len(slices.Concat(test.pages...)); n != want {
					t.Errorf("%d entries, want %d", n, want)
				}
			})
		}
	}
}

func TestSearchSlots(t *testing.T) {
	server := serve(t, nil, directoryOf(pagesOf([]fakeEntry{
		{"CN=in order", [][]string{{"cn", "a"}, {"mail", "m1", "m2"}, {"objectGUID", "\x00\xff"}}},
		{"CN=other order", [][]string{{"objectGUID", "g"}, {"cn", "b"}, {"mail", "m"}}},
		{"CN=other case", [][]string{{"CN", "c"}, {"MAIL", "m"}, {"objectguid", "g"}}},
		{"CN=some absent", [][]string{{"mail", "m"}}},
		{"CN=others", [][]string{{"sn", "x"}, {"cn", "e"}, {"cnx", "x"}, {"c", "x"}, {"cn;lang-de", "x"}, {"", "x"}}},
		{"CN=no values", [][]string{{"cn"}, {"mail", ""}}},
		{"CN=named twice", [][]string{{"cn", "g1", "g2"}, {"mail", "m"}, {"CN", "g3"}}},
		{"CN=Ülkü\\, K\x00", nil},
		{"", [][]string{{"cn", strings.Repeat("x", 1<<20)}}},
	})))
	want := []string{
		`CN=in order [["a"] ["m1" "m2"] ["\x00\xff"]]`,
		`CN=other order [["b"] ["m"] ["g"]]`,
		`CN=other case [["c"] ["m"] ["g"]]`,
		`CN=some absent [[] ["m"] []]`,
		`CN=others [["e"] [] []]`,
		`CN=no values [[] [""] []]`,
		`CN=named twice [["g1" "g2" "g3"] ["m"] []]`,
		"CN=Ülkü\\, K\x00 [[] [] []]",
		` [["` + strings.Repeat("x", 1<<20) + `"] [] []]`,
	}
	var got []string
	if _, err := connect(t, server.options()).Search(t.Context(), people, func(e *ad.Entry) error {
		got = append(got, dump(e))
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

// What comes besides the entries of this search is nobody's.
func TestSearchIgnores(t *testing.T) {
	reference := func(id int64) []byte {
		r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
		r.AppendChild(octets("ldap://other.test/DC=other"))
		return message(id, r)
	}
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		return p.send(
			reference(r.id),
			fakeEntry{"CN=foreign", nil}.message(r.id-1), fakeEntry{"CN=foreign", nil}.message(r.id+1), fakeEntry{"CN=foreign", nil}.message(0),
			done(r.id-1, 0, paging("")), done(r.id+1, 0, paging("")),
			[]byte("\x30\x0b\x02\x01\x00\x78\x06\x8a\x04x.y."), // an unknown notification
			fakeEntry{"CN=a", nil}.message(r.id),
			reference(r.id), message(r.id, ber.Encode(ber.ClassApplication, ber.TypeConstructed, 25, nil, "")), // intermediate
			fakeEntry{"CN=b", nil}.message(r.id), reference(r.id),
			done(r.id, 0, paging("")))
	}))
	var delivered string
	if _, err := connect(t, server.options()).Search(t.Context(), people, collect(&delivered)); err != nil || delivered != "CN=a CN=b " {
		t.Errorf("%q, %v", delivered, err)
	}
}

func TestSearchesAfterEachOther(t *testing.T) {
	pages := pagesOf([]fakeEntry{{"CN=a", [][]string{{"cn", "a"}}}}, []fakeEntry{{"CN=b", nil}})
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		if !r.paged {
			return p.send(fakeEntry{"CN=small", [][]string{{"cn", "x"}}}.message(r.id), done(r.id, 0))
		}
		if r.base == "CN=nowhere" {
			return p.send(done(r.id, ldap.LDAPResultNoSuchObject))
		}
		return pages(p, r)
	}))
	session := connect(t, server.options())
	small := ldap.NewSearchRequest("CN=x", ldap.ScopeBaseObject, 0, 0, 0, false, "(cn=*)", []string{"cn"}, nil)
	for n := range 5 {
		var delivered string
		if pages, err := session.Search(t.Context(), people, collect(&delivered)); err != nil || pages != 2 || delivered != "CN=a CN=b " {
			t.Fatalf("search %d: %d pages, %q, %v", n, pages, delivered, err)
		}
		if got, err := session.conn.Search(small); err != nil || len(got.Entries) != 1 || got.Entries[0].GetAttributeValue("cn") != "x" {
			t.Fatalf("small search %d: %v, %v", n, got, err)
		}
		if _, err := session.Search(t.Context(), Search{Base: "CN=nowhere", Filter: "(cn=*)"}, collect(&delivered)); err == nil {
			t.Fatal("no error")
		}
		if _, err := session.Search(t.Context(), Search{Filter: "(cn=*"}, collect(&delivered)); err == nil {
			t.Fatal("no error")
		}
	}
}

func TestSearchFilterIsChecked(t *testing.T) {
	server := serve(t, nil, directoryOf(nil))
	_, err := connect(t, server.options()).Search(t.Context(), Search{Base: "DC=corp", Filter: "(cn=*"}, collect(new(string)))
	wantError(t, err, fault.Refused, "(cn=*", "ldap.user-filter or ldap.group-filter")
}

func TestSearchResultCodes(t *testing.T) {
	for _, test := range []struct {
		name    string
		code    int
		matched string
		class   fault.Class
		part    string
	}{
		{"time limit", 3, "", fault.Incomplete, "lower ldap.page-size"},
		{"size limit", 4, "", fault.Incomplete, "lower ldap.page-size"},
		{"referral", 10, "", fault.Refused, "another server's domain"},
		{"admin limit", 11, "", fault.Incomplete, "lower ldap.page-size"},
		{"cookie has expired", 12, "", fault.Transient, "no longer knows the paged search after 1 pages"},
		{"cookie was pushed out", 53, "", fault.Transient, "MaxResultSetsPerConn"},
		{"filter of wrong type", 18, "", fault.Transient, "LDAP result 18"},
		{"no such base", 32, "DC=corp\n", fault.Refused, "what exists of it is DC=corp: correct profile.baseContext"},
		{"no such base at all", 32, "", fault.Refused, "may not see it: correct profile.baseContext"},
		{"base is no DN", 34, "", fault.Refused, "not a DN"},
		{"inappropriate login", 48, "", fault.Refused, "grant the account the right"},
		{"no right", 50, "", fault.Refused, "grant the account the right"},
		{"busy", 51, "", fault.Transient, "Busy (LDAP result 51: the server's words)"},
		{"unavailable", 52, "", fault.Transient, "LDAP result 52"},
		{"other", 80, "", fault.Transient, "LDAP result 80"},
		{"unknown", 199, "", fault.Transient, "LDAP result 199"},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := true
			server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
				if first {
					first = false
					return p.send(fakeEntry{"CN=a", nil}.message(r.id), done(r.id, 0, paging("more")))
				}
				return p.send(fakeEntry{"CN=b", nil}.message(r.id),
					result(r.id, ldap.ApplicationSearchResultDone, test.code, test.matched, "the server's words\x00", paging("")))
			}))
			var delivered string
			pages, err := connect(t, server.options()).Search(t.Context(), people, collect(&delivered))
			wantError(t, err, test.class, "search OU=People,DC=corp on 127.0.0.1:", test.part)
			if pages != 1 || delivered != "CN=a CN=b " {
				t.Errorf("%d pages, %q", pages, delivered)
			}
		})
	}
}

func TestSearchWithoutPaging(t *testing.T) {
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		return p.send(result(r.id, ldap.ApplicationSearchResultDone, 12, "", "the server's words\x00", paging("")))
	}))
	var delivered string
	_, err := connect(t, server.options()).Search(t.Context(), people, collect(&delivered))
	wantError(t, err, fault.Refused, "does not offer paged results")
}

// Answers that prove nothing, or are none.
func TestSearchDoubtfulAnswers(t *testing.T) {
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
		name   string
		answer func(id int64) []byte
		class  fault.Class
		part   string
	}{
		{"no paging control", func(id int64) []byte { return done(id, 0) }, fault.Incomplete, "no paging control"},
		{"other controls only", func(id int64) []byte { return done(id, 0, ldap.NewControlString("1.2.3", false, "")) }, fault.Incomplete, "no paging control"},
		{"a broken paging control", func(id int64) []byte {
			return done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, "\x30\x05\x02\x01"))
		}, fault.Incomplete, "not LDAP"},
		{"a paging control without a cookie", func(id int64) []byte {
			return done(id, 0, ldap.NewControlString(ldap.ControlTypePaging, false, "\x30\x03\x02\x01\x00"))
		}, fault.Incomplete, "not LDAP"},
		{"a result of nothing", func(id int64) []byte { return wrap(id, []byte("\x65\x00")) }, fault.Incomplete, "not LDAP"},
		{"1 GiB announced", func(int64) []byte { return []byte("\x30\x84\x40\x00\x00\x00\x02") }, fault.Incomplete, "1073741824 bytes announced"},
		{"4 GiB announced", func(int64) []byte { return []byte("\x30\x84\xff\xff\xff\xff\x02") }, fault.Incomplete, ""},
		{"more than 4 GiB announced", func(int64) []byte { return []byte("\x30\x85\x01\x00\x00\x00\x00\x02") }, fault.Incomplete, "not LDAP"},
		{"an indefinite length", func(id int64) []byte { return []byte("\x30\x80\x02\x01\x03\x65\x00\x00\x00") }, fault.Incomplete, "not LDAP"},
		{"an indefinite length within", func(id int64) []byte { return wrap(id, []byte("\x64\x80\x04\x00\x30\x00\x00\x00")) }, fault.Incomplete, "malformed"},
		{"another tag", func(int64) []byte { return []byte("\x31\x03\x02\x01\x03") }, fault.Incomplete, "not LDAP"},
		{"no message ID", func(int64) []byte { return []byte("\x30\x02\x64\x00") }, fault.Incomplete, "not LDAP"},
		{"no operation", func(int64) []byte { return []byte("\x30\x03\x02\x01\x03") }, fault.Incomplete, "not LDAP"},
		{"an empty message", func(int64) []byte { return []byte("\x30\x00") }, fault.Incomplete, "not LDAP"},
		{"deep nesting in a result", func(id int64) []byte { return wrap(id, append([]byte{0x65, 0x82, 0x06, 0x42}, nested(400)...)) }, fault.Incomplete, "not LDAP"},
		{"deep nesting in controls", func(id int64) []byte {
			return wrap(id, append([]byte{0x65, 0, 0xa0, 0x82, 0x06, 0x42}, nested(400)...))
		}, fault.Incomplete, "not LDAP"},
		{"deep nesting in an entry", func(id int64) []byte { return wrap(id, append([]byte{0x64, 0x82, 0x06, 0x42}, nested(400)...)) }, fault.Incomplete, "malformed"},
		{"a huge result", func(id int64) []byte {
			return result(id, ldap.ApplicationSearchResultDone, 0, "", strings.Repeat("x", maxPassed), paging(""))
		}, fault.Incomplete, "besides entries"},
		{"chatter without end", func(id int64) []byte {
			return bytes.Repeat(result(id, 25, 0, "", strings.Repeat("x", 1000)), maxPassed/1000)
		}, fault.Incomplete, "besides entries"},
		{"an entry of another class", func(id int64) []byte {
			return slices.Concat(wrap(id, []byte("\xa4\x08\x04\x04CN=x\x30\x00")), done(id, 0, paging("")))
		}, fault.Incomplete, "1 entries"},
		{"an entry without attributes' list", func(id int64) []byte { return wrap(id, []byte("\x64\x03\x04\x01x")) }, fault.Incomplete, "malformed"},
		{"a DN of another type", func(id int64) []byte { return wrap(id, []byte("\x64\x05\x0c\x01x\x30\x00")) }, fault.Incomplete, "malformed"},
		{"an attribute of another type", func(id int64) []byte { return wrap(id, []byte("\x64\x07\x04\x01x\x30\x02\x31\x00")) }, fault.Incomplete, "malformed"},
		{"an attribute without values' set", func(id int64) []byte {
			return wrap(id, []byte("\x64\x0b\x04\x01x\x30\x06\x30\x04\x04\x02cn"))
		}, fault.Incomplete, "malformed"},
		{"a value of another type", func(id int64) []byte {
			return wrap(id, []byte("\x64\x10\x04\x01x\x30\x0b\x30\x09\x04\x02cn\x31\x03\x02\x01x"))
		}, fault.Incomplete, "malformed"},
		{"a value beyond its set", func(id int64) []byte {
			return wrap(id, []byte("\x64\x10\x04\x01x\x30\x0b\x30\x09\x04\x02cn\x31\x03\x04\x02x"))
		}, fault.Incomplete, "malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
				p.send(fakeEntry{"CN=a", nil}.message(r.id), test.answer(r.id))
				p.hang()
				return false
			}))
			o := server.options()
			o.ResponseTimeout = 10 * time.Second // would be the error, if the answer were taken
			var delivered string
			_, err := connect(t, o).Search(t.Context(), people, collect(&delivered))
			wantError(t, err, test.class, test.part)
		})
	}
}

// Entries that come after the end have nobody to take them: they must not block
// the session's end.
func TestEntriesAfterTheEnd(t *testing.T) {
	entry := fakeEntry{"CN=a", [][]string{{"cn", strings.Repeat("x", 10_000)}}}
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		p.send(done(r.id, 0, paging("")))
		for p.send(entry.message(r.id)) {
		}
		return false
	}))
	session := connect(t, server.options())
	if _, err := session.Search(t.Context(), people, collect(new(string))); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Search(t.Context(), people, collect(new(string))); err == nil {
		t.Error("no error")
	}
}

// flood is a script that sends pages of big entries without end, and counts them.
func flood(sent *atomic.Int64) func(p *peer) {
	return directoryOf(func(p *peer, r request) bool {
		m := fakeEntry{"CN=a", [][]string{{"cn", strings.Repeat("x", 8<<10)}}}.message(r.id)
		for p.send(m) {
			sent.Add(1)
		}
		return false
	})
}

func TestConsumerStops(t *testing.T) {
	enough := errors.New("enough")
	for _, test := range []struct {
		name string
		wait func(s *stream) bool
	}{
		{"while entries come", func(*stream) bool { return true }},
		{"while the reading is held up", func(s *stream) bool { return eventually(func() bool { return len(s.free) == 0 }) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sent atomic.Int64
			server := serve(t, nil, flood(&sent))
			session := connect(t, server.options())
			n := 0
			_, err := session.Search(t.Context(), people, func(*ad.Entry) error {
				if n++; n < 100 {
					return nil
				}
				if !test.wait(session.wire.stream) {
					t.Error("never held up")
				}
				return enough
			})
			if err != enough || n != 100 {
				t.Errorf("%v after %d entries", err, n)
			}
			if _, err := session.Search(t.Context(), people, collect(new(string))); err == nil {
				t.Error("the session is still of use")
			}
		})
	}
}

// A chunk that nobody will take must not hold the reading goroutine for ever.
func TestStoppedStreamTakesNoMore(t *testing.T) {
	s := newStream(1)
	close(s.stopped)
	for range chunks + 1 {
		if err := s.put(make([]byte, defaultChunkSize)); err == errStopped {
			return
		}
	}
	t.Error("takes more than it has chunks")
}

func TestConsumerIsCancelled(t *testing.T) {
	for _, test := range []struct {
		name string
		each func(ctx context.Context) error
	}{
		{"and waits for that", func(ctx context.Context) error { <-ctx.Done(); return nil }},
		{"and is slow", func(ctx context.Context) error { <-time.After(100 * time.Millisecond); return nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sent atomic.Int64
			server := serve(t, nil, flood(&sent))
			session := connect(t, server.options())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				eventually(func() bool { return sent.Load() > 100 })
				cancel()
			}()
			err := within(t, ctx.Done(), func() error {
				_, err := session.Search(ctx, people, func(*ad.Entry) error { return test.each(ctx) })
				return err
			})
			wantError(t, err, fault.Canceled, "search OU=People")
		})
	}
}

func TestSlowConsumer(t *testing.T) {
	const entries, timeout = 4096, 500 * time.Millisecond // of 8 KiB each
	var sent atomic.Int64
	value := strings.Repeat("x", 8<<10)
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		for n := range entries {
			if !p.send(fakeEntry{fmt.Sprint(n), [][]string{{"cn", value}}}.message(r.id)) {
				return false
			}
			sent.Add(1)
		}
		return p.send(done(r.id, 0, paging("")))
	}))
	o := server.options()
	o.ResponseTimeout = timeout
	n := 0
	_, err := connect(t, o).Search(t.Context(), people, func(e *ad.Entry) error {
		if n == 0 {
			// The server comes to a stand, for several times as long as it may itself
			// keep us waiting.
			for before, still := int64(-1), 0; still < 3; {
				if now := sent.Load(); now != before {
					before, still = now, 0
				} else {
					still++
				}
				<-time.After(timeout)
			}
			if sent.Load() == entries {
				t.Error("everything was read ahead")
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
}

// TestDrip: a server that lets a byte through now and then is not waited for forever,
// and one that was left alone for as long has not kept us waiting.
func TestDrip(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, drips := range []int{1, 1000} {
		t.Run(fmt.Sprint(drips, " drips"), func(t *testing.T) {
			t.Parallel()
			server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
				if r.base != people.Base {
					return p.send(done(r.id, 0, paging("")))
				}
				message := fakeEntry{"CN=a", [][]string{{"cn", strings.Repeat("x", 1000)}}}.message(r.id)
				for _, b := range message[:min(drips, len(message))] {
					if _, err := p.Write([]byte{b}); err != nil {
						return false
					}
					<-time.After(timeout / 10)
				}
				return p.send(message[min(drips, len(message)):], done(r.id, 0, paging("")))
			}))
			o := server.options()
			o.ResponseTimeout = timeout
			session := connect(t, o)
			<-time.After((maxWaits + 1) * timeout) // idle
			start := time.Now()
			_, err := session.Search(t.Context(), people, func(*ad.Entry) error { return nil })
			if drips == 1 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, fault.Transient, "the answer comes too slowly", "3s")
			if took := time.Since(start); took > maxWaits*timeout+moment {
				t.Errorf("took %s", took)
			}
		})
	}
}

// The connection may be idle while everything is here and the consumer is busy.
func TestIdleConnection(t *testing.T) {
	server := serve(t, nil, directoryOf(pagesOf([]fakeEntry{{"CN=a", nil}})))
	o := server.options()
	o.ResponseTimeout = 300 * time.Millisecond
	session := connect(t, o)
	for range 2 {
		if _, err := session.Search(t.Context(), people, func(*ad.Entry) error {
			<-time.After(3 * o.ResponseTimeout)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// heapPeak measures what a search adds to the heap at most.
func heapPeak(t *testing.T, session *Session) (entries int, peak uint64, err error) {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	measured := time.Now()
	_, err = session.Search(t.Context(), people, func(*ad.Entry) error {
		if entries++; time.Since(measured) > 10*time.Millisecond {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			measured = time.Now()
		}
		return nil
	})
	runtime.ReadMemStats(&m)
	return entries, max(peak, m.HeapAlloc) - min(before, m.HeapAlloc), err
}

func TestHugeEntriesInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 1 GiB")
	}
	m := fakeEntry{"CN=a", [][]string{{"cn", strings.Repeat("x", 1<<20)}}}
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		entry := m.message(r.id)
		for range hugeEntries {
			if _, err := p.Write(entry); err != nil {
				return false
			}
		}
		return p.send(done(r.id, 0, paging("")))
	}))
	n, peak, err := heapPeak(t, connect(t, server.options()))
	if err != nil || n != hugeEntries {
		t.Fatalf("%d entries, %v", n, err)
	}
	t.Logf("%d entries of 1 MiB in %d KiB of heap", n, peak>>10)
	if peak > 64<<20 {
		t.Errorf("%d MiB of heap", peak>>20)
	}
}

// What go-ldap decodes is multiplied by it: the bound on it must hold that down.
func TestManySmallElementsInLittleMemory(t *testing.T) {
	body := bytes.Repeat([]byte{tagOctetString, 1, 'x'}, (maxPassed-100)/3)
	operation := slices.Concat([]byte{0x65, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		size := len(operation) + 3
		p.send([]byte{tagSequence, 0x83, byte(size >> 16), byte(size >> 8), byte(size), tagInteger, 1, byte(r.id)}, operation)
		p.hang()
		return false
	}))
	_, peak, err := heapPeak(t, connect(t, server.options()))
	wantError(t, err, fault.Incomplete, "not LDAP")
	t.Logf("%d KiB of heap for %d KiB of elements", peak>>10, len(body)>>10)
	if peak > 64<<20 {
		t.Errorf("%d MiB of heap", peak>>20)
	}
}
