package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/test/fakeldap"
)

// randomEntry returns an entry with random values. Its attributes are requested ones in
// random order and case, and others.
func randomEntry(r *rand.Rand, attributes []string) fakeldap.RawEntry {
	random := func() string {
		b := make([]byte, []int{0, 1, 16, 127, 128, 255, 256, 8_000}[r.IntN(8)*r.IntN(8)/7])
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	e := fakeldap.NewEntry(random())
	for _, slot := range r.Perm(len(attributes)) {
		name := attributes[slot]
		switch r.IntN(6) {
		case 0:
			continue
		case 1:
			name = strings.ToUpper(name)
		case 2:
			name = strings.ToLower(name)
		case 3:
			name += random()
		}
		attribute := []string{name}
		for range r.IntN(4) {
			attribute = append(attribute, random())
		}
		e.Attributes = append(e.Attributes, attribute)
	}
	return e
}

// TestDecodeMatchesGoLDAP checks that decoder and go-ldap return the same for the same bytes.
func TestDecodeMatchesGoLDAP(t *testing.T) {
	t.Parallel()
	attributes := []string{"cn", "mail", "objectGUID", "sAMAccountName", "l", "co"}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var generated [][]byte
	for range 300 {
		generated = append(generated, randomEntry(r, attributes).Message(1))
	}
	t.Run(fmt.Sprintf("generated with seed %d", seed), func(t *testing.T) { compareDecoders(t, generated, attributes) })
	t.Run("captured", func(t *testing.T) {
		compareDecoders(t, captured(t), []string{"cn", "sn", "MAIL", "description", "jpegPhoto", "objectClass", "dnsHostName", "supportedControl", "isSynchronized"})
	})
}

// captured returns messages of slapd 2.5 and Samba 4.17, all with message ID 1. Samba's
// message is its rootDSE.
func captured(t testing.TB) (messages [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/captured/*.ber")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		message, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, message)
	}
	return messages
}

// compareDecoders decodes messages with both decoders and compares DNs and values.
func compareDecoders(t *testing.T, messages [][]byte, attributes []string) {
	entries := len(messages)
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		if _, err := ber.ReadPacket(server); err != nil {
			return
		}
		for _, m := range append(messages, fakeldap.Done(1, 0)) {
			if _, err := server.Write(m); err != nil {
				return
			}
		}
	}()
	conn := ldap.NewConn(client, false)
	conn.Start()
	defer conn.Close()
	result, err := conn.Search(ldap.NewSearchRequest("", 2, 0, 0, 0, false, "(cn=*)", nil, nil))
	if err != nil || len(result.Entries) != entries {
		t.Fatalf("%d entries, %v", len(result.Entries), err)
	}

	d := newDecoder(attributes)
	for n, wantEntry := range result.Entries {
		entry, err := d.decode(messages[n])
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
		if string(entry.DN) != wantEntry.DN {
			t.Fatalf("entry %d: DN %q, want %q", n, entry.DN, wantEntry.DN)
		}
		for slot, name := range attributes {
			var want [][]byte
			for _, a := range wantEntry.Attributes {
				if strings.EqualFold(a.Name, name) {
					want = append(want, a.ByteValues...)
				}
			}
			if got := entry.Values[slot]; len(got) != len(want) || !bytes.Equal(bytes.Join(got, []byte("|")), bytes.Join(want, []byte("|"))) {
				t.Fatalf("entry %d, %s: %q, want %q", n, name, got, want)
			}
		}
	}
}

func TestDecodeLimitsValues(t *testing.T) {
	t.Parallel()
	values := func(name string, n int) []byte {
		body := append([]byte{tagOctetString, byte(len(name))}, name...)
		return longElement(tagSequence, append(body, longElement(tagSet, bytes.Repeat([]byte{tagOctetString, 0}, n))...))
	}
	entry := func(attributes ...[]byte) []byte {
		operation := append([]byte{tagOctetString, 1, 'x'}, longElement(tagSequence, bytes.Join(attributes, nil))...)
		return longElement(tagSequence, append([]byte{tagInteger, 1, 1}, longElement(tagSearchEntry, operation)...))
	}
	for _, test := range []struct {
		name    string
		message []byte
		ok      bool
	}{
		{"at the limit", entry(values("cn", maxValues)), true},
		{"above the limit", entry(values("cn", maxValues+1)), false},
		{"above the limit in two attributes", entry(values("cn", maxValues), values("mail", 1)), false},
		{"above the limit in a repeated attribute", entry(values("cn", maxValues), values("CN", 1)), false},
		{"above the limit in an attribute that was not requested", entry(values("member", maxValues+1)), true},
	} {
		d := newDecoder([]string{"cn", "mail"})
		e, err := d.decode(test.message)
		if test.ok && err != nil || !test.ok && !errors.Is(err, errTooLarge) {
			t.Errorf("%s: entry %t, %v", test.name, e != nil, err)
		}
	}
}

// longElement encodes an element with four length bytes, as Active Directory does.
func longElement(tag byte, content []byte) []byte {
	n := len(content)
	return append([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, content...)
}

// typicalEntry returns the message of an entry with 20 requested attributes.
func typicalEntry() (message []byte, attributes []string) {
	e := fakeldap.NewEntry("CN=Ada Lovelace,OU=People,DC=corp,DC=example,DC=com")
	for n := range 20 {
		name := fmt.Sprintf("attributeNumber%d", n)
		attributes = append(attributes, name)
		e.Attributes = append(e.Attributes, []string{strings.ToLower(name), fmt.Sprintf("the value number %d", n)})
	}
	e.Attributes[3] = append(e.Attributes[3], "another", "and another")
	e.Attributes = append(e.Attributes[5:], e.Attributes[:5]...)
	return e.Message(7), attributes
}

func TestDecodeAllocatesNothing(t *testing.T) {
	message, attributes := typicalEntry()
	d := newDecoder(attributes)
	decode := func() {
		if _, err := d.decode(message); err != nil {
			t.Fatal(err)
		}
	}
	decode() // grows the slices
	if n := testing.AllocsPerRun(100, decode); n != 0 {
		t.Errorf("%v allocations an entry, want 0", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	message, attributes := typicalEntry()
	d := newDecoder(attributes)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(message); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode checks that no input causes a panic or a value outside of the message, and that
// the DN is the same as go-ldap's.
func FuzzDecode(f *testing.F) {
	message, attributes := typicalEntry()
	f.Add(message)
	f.Add(fakeldap.NewEntry("CN=a", []string{"attributenumber1", "x", ""}, []string{"attributeNumber1", "y"}, []string{"sn"}).Message(1))
	f.Add(longElement(tagSequence, append([]byte{tagInteger, 1, 1}, longElement(tagSearchEntry, append([]byte{tagOctetString, 0}, longElement(tagSequence, nil)...))...)))
	f.Add(fakeldap.Done(1, 0, fakeldap.Paging("cookie")))
	f.Add([]byte("\x30\x84\xff\xff\xff\xff\x02\x01\x01\x64\x80"))
	f.Fuzz(func(t *testing.T, message []byte) {
		d := newDecoder(attributes)
		_, _ = d.decode(message) // the second call uses the slot hints
		entry, err := d.decode(message)
		if err != nil {
			return
		}
		within := func(part []byte) {
			start, end := uintptr(unsafe.Pointer(unsafe.SliceData(message))), uintptr(unsafe.Pointer(unsafe.SliceData(part)))
			if len(part) > 0 && (end < start || end+uintptr(len(part)) > start+uintptr(len(message))) {
				t.Errorf("%q is outside of the message", part)
			}
		}
		within(entry.DN)
		if len(entry.Values) != len(attributes) {
			t.Fatalf("%d slots", len(entry.Values))
		}
		for _, values := range entry.Values {
			for _, v := range values {
				within(v)
			}
		}
		packet, err := ber.DecodePacketErr(message)
		if err != nil {
			return
		}
		if dn := packet.Children[1].Children[0].ByteValue; !bytes.Equal(dn, entry.DN) {
			t.Errorf("DN %q, want %q", entry.DN, dn)
		}
	})
}

// TestDecodeRanges: an attribute with too many values is returned empty, together with its
// first range (MS-ADTS 3.1.1.3.1.3.3).
func TestDecodeRanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		attributes [][]string
		values     int
		partial    bool
	}{
		{"all values", [][]string{{"member", "a", "b"}}, 2, false},
		{"first range", [][]string{{"member"}, {"member;range=0-1", "a", "b"}}, 2, true},
		{"in another case", [][]string{{"MEMBER;Range=2-3", "c", "d"}}, 2, true},
		{"last range", [][]string{{"member;range=4-*", "e"}}, 1, false},
		{"other option", [][]string{{"member;lang-en", "x"}}, 0, false},
		{"only the option", [][]string{{";range=0-1", "x"}}, 0, false},
	} {
		d := newDecoder([]string{"cn", "member"})
		e, err := d.decode(fakeldap.NewEntry("CN=g", test.attributes...).Message(1))
		if err != nil || len(e.Values[1]) != test.values || (len(e.Partial) == 1 && e.Partial[0] == 1) != test.partial {
			t.Errorf("%s: %d values, partial %v, %v", test.name, len(e.Values[1]), e.Partial, err)
		}
	}
}
