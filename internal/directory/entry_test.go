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

// randomEntry makes an entry of requested attributes in changing case and order,
// and of others, with values of any bytes.
func randomEntry(r *rand.Rand, attributes []string) fakeldap.RawEntry {
	random := func() string {
		b := make([]byte, []int{0, 1, 16, 127, 128, 255, 256, 9_000}[r.IntN(8)*r.IntN(8)/7])
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

// On the same bytes our decoder and go-ldap's agree.
func TestDecodeAgreesWithGoLDAP(t *testing.T) {
	t.Parallel()
	attributes := []string{"cn", "mail", "objectGUID", "sAMAccountName", "l", "co"}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var generated [][]byte
	for range 300 {
		generated = append(generated, randomEntry(r, attributes).Message(1))
	}
	t.Run(fmt.Sprintf("generated with seed %d", seed), func(t *testing.T) { agree(t, generated, attributes) })
	t.Run("captured", func(t *testing.T) {
		agree(t, captured(t), []string{"cn", "sn", "MAIL", "description", "jpegPhoto", "objectClass", "dnsHostName", "supportedControl", "isSynchronized"})
	})
}

// captured are messages that slapd 2.5 and Samba 4.17 have sent, all with message
// ID 1. Samba's is its rootDSE.
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

// agree decodes messages with both decoders and compares names, values and DNs.
func agree(t *testing.T, messages [][]byte, attributes []string) {
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
	theirs, err := conn.Search(ldap.NewSearchRequest("", 2, 0, 0, 0, false, "(cn=*)", nil, nil))
	if err != nil || len(theirs.Entries) != entries {
		t.Fatalf("%d entries, %v", len(theirs.Entries), err)
	}

	d := newDecoder(attributes)
	for n, their := range theirs.Entries {
		our, err := d.decode(messages[n])
		if err != nil {
			t.Fatalf("entry %d: %v", n, err)
		}
		if string(our.DN) != their.DN {
			t.Fatalf("entry %d: DN %q, want %q", n, our.DN, their.DN)
		}
		for slot, name := range attributes {
			var want [][]byte
			for _, a := range their.Attributes {
				if strings.EqualFold(a.Name, name) {
					want = append(want, a.ByteValues...)
				}
			}
			if got := our.Values[slot]; len(got) != len(want) || !bytes.Equal(bytes.Join(got, []byte("|")), bytes.Join(want, []byte("|"))) {
				t.Fatalf("entry %d, %s: %q, want %q", n, name, got, want)
			}
		}
	}
}

func TestDecodeBoundsValues(t *testing.T) {
	t.Parallel()
	values := func(name string, n int) []byte {
		body := append([]byte{tagOctetString, byte(len(name))}, name...)
		return long(tagSequence, append(body, long(tagSet, bytes.Repeat([]byte{tagOctetString, 0}, n))...))
	}
	entry := func(attributes ...[]byte) []byte {
		operation := append([]byte{tagOctetString, 1, 'x'}, long(tagSequence, bytes.Join(attributes, nil))...)
		return long(tagSequence, append([]byte{tagInteger, 1, 1}, long(tagSearchEntry, operation)...))
	}
	for _, test := range []struct {
		name    string
		message []byte
		ok      bool
	}{
		{"as many as allowed", entry(values("cn", maxValues)), true},
		{"one more", entry(values("cn", maxValues+1)), false},
		{"one more, in two attributes", entry(values("cn", maxValues), values("mail", 1)), false},
		{"one more, in one attribute named twice", entry(values("cn", maxValues), values("CN", 1)), false},
		{"more, in an attribute nobody asked for", entry(values("member", maxValues+1)), true},
	} {
		d := newDecoder([]string{"cn", "mail"})
		e, err := d.decode(test.message)
		if test.ok && err != nil || !test.ok && !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v, %v", test.name, e != nil, err)
		}
	}
}

// long writes an element as Active Directory does, with four bytes of length.
func long(tag byte, content []byte) []byte {
	n := len(content)
	return append([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, content...)
}

// usual is an entry of 20 attributes, as a domain controller has them.
func usual() (message []byte, attributes []string) {
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
	message, attributes := usual()
	d := newDecoder(attributes)
	decode := func() {
		if _, err := d.decode(message); err != nil {
			t.Fatal(err)
		}
	}
	decode() // slots and guesses grow once
	if n := testing.AllocsPerRun(100, decode); n != 0 {
		t.Errorf("%v allocations an entry", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	message, attributes := usual()
	d := newDecoder(attributes)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(message); err != nil {
			b.Fatal(err)
		}
	}
}

// No bytes make the decoder panic, or give out what is not part of them; and where
// both decode, ours and go-ldap's agree on the DN.
func FuzzDecode(f *testing.F) {
	message, attributes := usual()
	f.Add(message)
	f.Add(fakeldap.NewEntry("CN=a", []string{"attributenumber1", "x", ""}, []string{"attributeNumber1", "y"}, []string{"sn"}).Message(1))
	f.Add(long(tagSequence, append([]byte{tagInteger, 1, 1}, long(tagSearchEntry, append([]byte{tagOctetString, 0}, long(tagSequence, nil)...))...)))
	f.Add(fakeldap.Done(1, 0, fakeldap.Paging("cookie")))
	f.Add([]byte("\x30\x84\xff\xff\xff\xff\x02\x01\x01\x64\x80"))
	f.Fuzz(func(t *testing.T, message []byte) {
		d := newDecoder(attributes)
		_, _ = d.decode(message) // the second time, slots are guessed
		entry, err := d.decode(message)
		if err != nil {
			return
		}
		within := func(part []byte) {
			start, end := uintptr(unsafe.Pointer(unsafe.SliceData(message))), uintptr(unsafe.Pointer(unsafe.SliceData(part)))
			if len(part) > 0 && (end < start || end+uintptr(len(part)) > start+uintptr(len(message))) {
				t.Errorf("%q lies outside", part)
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
			t.Errorf("DN %q, go-ldap has %q", entry.DN, dn)
		}
	})
}

// An attribute of too many values comes empty and with a first range beside it.
func TestDecodeKnowsRanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		given   [][]string
		values  int
		partial bool
	}{
		{"whole", [][]string{{"member", "a", "b"}}, 2, false},
		{"first range", [][]string{{"member"}, {"member;range=0-1", "a", "b"}}, 2, true},
		{"in another case", [][]string{{"MEMBER;Range=2-3", "c", "d"}}, 2, true},
		{"last range", [][]string{{"member;range=4-*", "e"}}, 1, false},
		{"another option", [][]string{{"member;lang-en", "x"}}, 0, false},
		{"only the option", [][]string{{";range=0-1", "x"}}, 0, false},
	} {
		d := newDecoder([]string{"cn", "member"})
		e, err := d.decode(fakeldap.NewEntry("CN=g", test.given...).Message(1))
		if err != nil || len(e.Values[1]) != test.values || (len(e.Partial) == 1 && e.Partial[0] == 1) != test.partial {
			t.Errorf("%s: %d values, partial %v, %v", test.name, len(e.Values[1]), e.Partial, err)
		}
	}
}
