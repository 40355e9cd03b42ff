package hostile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/test/fakeldap"
)

// descriptors are the attributes of the rootDSE of a server that offers extended DNs and descriptors.
var descriptors = [][]string{{"supportedControl", "1.2.840.113556.1.4.529", "1.2.840.113556.1.4.801"}}

// maxEntry is a little less than the largest message that the connector accepts.
const maxEntry = 16_000_000

// searchAnswer answers the searches for users and groups.
type searchAnswer = func(p *fakeldap.Peer, r fakeldap.Request) bool

// user returns the n-th user with further attributes, which replace those with equal names.
func user(n int, attributes ...[]string) fakeldap.RawEntry {
	return merge(fakeldap.User(n), attributes)
}

func merge(e fakeldap.Entry, attributes [][]string) fakeldap.RawEntry {
	merged := fakeldap.NewEntry(e.DN, attributes...)
	for name, value := range e.Attributes {
		if !slices.ContainsFunc(attributes, func(a []string) bool { return a[0] == name }) {
			merged.Attributes = append(merged.Attributes, []string{name, value})
		}
	}
	return merged
}

// reads reports whether a search reads objects: others count them, with a limit and without attributes.
func reads(r fakeldap.Request) bool { return r.SizeLimit == 0 && len(r.Attributes) > 1 }

// onUsers answers the first request of the search for users, and finds nothing else.
func onUsers(answer searchAnswer) searchAnswer {
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if r.Scope == ldap.ScopeBaseObject || !strings.Contains(r.Filter, "sAMAccountType") {
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}
		if !reads(r) { // whether there is one
			return p.Send(user(0).Message(r.ID), fakeldap.Done(r.ID, 0))
		}
		return answer(p, r)
	}
}

// entries answers with entries on one page.
func entries(count int, entry func(n int) fakeldap.RawEntry) searchAnswer {
	return onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		for n := range count {
			if !p.Write(entry(n).Message(r.ID)) {
				return false
			}
		}
		return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	})
}

// pages answers with pages that have no end.
func pages(perPage int, entry func(n int) fakeldap.RawEntry) searchAnswer {
	n := 0
	return onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		for range perPage {
			if !p.Write(entry(n).Message(r.ID)) {
				return false
			}
			n++
		}
		return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("the same cookie")))
	})
}

// raw answers with bytes and closes the connection.
func raw(message func(id int64) []byte) searchAnswer {
	return onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		p.Write(message(r.ID))
		return false
	})
}

// announced encodes the header of a message with a length that is not sent.
func announced(id int64, tag byte, size int) []byte {
	header := append([]byte{0x30, 0x84}, binary.BigEndian.AppendUint32(nil, uint32(size))...)
	header = append(header, 2, 4)
	header = append(binary.BigEndian.AppendUint32(header, uint32(id)), tag, 0x84)
	return binary.BigEndian.AppendUint32(header, uint32(size-12))
}

// nested encodes a search result with elements within elements.
func nested(id int64, tag byte, depth int) []byte {
	var body []byte
	for range depth {
		body = append(body, 0x30, 0x84, 0, 0, 0xff, 0xff)
	}
	return append(announced(id, tag, len(body)+12), body...)
}

func reference(id int64, size int) []byte {
	packet := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultReference, nil, "")
	packet.AppendChild(fakeldap.OctetString("ldap://" + strings.Repeat("x", size)))
	return fakeldap.Message(id, packet)
}

// endlessMembers answers the searches of the membership graph with one group whose ranges of
// members have no end.
func endlessMembers(perRange int, member func(n int) string) searchAnswer {
	return groupOf(perRange, 0, member)
}

// privileged answers the searches for users with a privileged one that has this DN.
func privileged(dn string) searchAnswer {
	return entries(1, func(n int) fakeldap.RawEntry {
		entry := user(n, []string{"adminCount", "1"}, []string{"nTSecurityDescriptor", "x"})
		entry.DN = dn
		return entry
	})
}

// groupOf answers the searches of the membership graph with one group. It has so many ranges
// of members; 0: without end.
func groupOf(perRange, ranges int, member func(n int) string) searchAnswer {
	group := fakeldap.Group(0)
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		first, ranged := 0, false
		for _, name := range r.Attributes {
			if text, found := strings.CutPrefix(name, "member;range="); found {
				first, _ = strconv.Atoi(strings.TrimSuffix(text, "-*"))
				ranged = true
			}
		}
		if !ranged && !strings.Contains(r.Filter, "objectClass=group") || r.Scope == ldap.ScopeBaseObject {
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}
		if !ranged && !reads(r) { // whether there is one
			return p.Send(merge(group, nil).Message(r.ID), fakeldap.Done(r.ID, 0))
		}
		end := strconv.Itoa(first + perRange - 1)
		if ranges > 0 && first >= (ranges-1)*perRange-1 {
			end = "*"
		}
		values := []string{fmt.Sprintf("member;range=%d-%s", first, end)}
		for n := range perRange {
			values = append(values, member(first+n))
		}
		entry := merge(group, [][]string{{"uSNChanged", "7"}, values})
		return p.Write(entry.Message(r.ID)) && p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}
}

// memberDN returns the extended DN of the n-th invented member.
func memberDN(n int) string {
	var guid [16]byte
	binary.BigEndian.PutUint32(guid[4:], uint32(n+1))
	sid := binary.LittleEndian.AppendUint32([]byte{1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}, uint32(n+1))
	return "<GUID=" + hex.EncodeToString(guid[:]) + ">;<SID=" + hex.EncodeToString(sid) + ">;CN=m"
}

// directoryAttacks returns the attacks of the directory. scale multiplies the number of large
// entries: with 10, it is 30 users with 15 MB of control characters.
func directoryAttacks(scale int) []attack {
	control := strings.Repeat("\x01", 5_000_000)
	large := strings.Repeat("x", maxEntry)
	many := make([][]string, 0, 100_000)
	for n := range cap(many) {
		many = append(many, []string{"a" + strconv.Itoa(n), "x"})
	}
	values := append([]string{"mail"}, strings.Split(strings.Repeat("x ", 250_000), " ")...)
	return []attack{
		{name: "users with 15 MB of control characters", directory: entries(3*scale, func(n int) fakeldap.RawEntry {
			return user(n, []string{"mail", control}, []string{"l", control}, []string{"st", control})
		})},
		{name: "users with 2.5 MB of control characters", directory: entries(3*scale, func(n int) fakeldap.RawEntry {
			return user(n, []string{"mail", control[:2_500_000]})
		})},
		{name: "entries of 16 MB", directory: entries(scale, func(n int) fakeldap.RawEntry { return user(n, []string{"unknown", large}) })},
		{name: "users with 15 MB of text", directory: entries(scale, func(n int) fakeldap.RawEntry { return user(n, []string{"mail", large[:15_000_000]}) })},
		{name: "names of 1 MB", directory: entries(5*scale, func(n int) fakeldap.RawEntry {
			return user(n, []string{"name", strings.Repeat("n", 1<<20)})
		})},
		{name: "many attributes", directory: entries(2*scale, func(n int) fakeldap.RawEntry { return user(n, many...) })},
		{name: "many values", directory: entries(3*scale, func(n int) fakeldap.RawEntry { return user(n, values) })},
		{name: "empty pages without end", directory: pages(0, nil)},
		{name: "the same page without end", directory: pages(3, func(n int) fakeldap.RawEntry { return user(n % 3) })},
		{name: "entries after the result", directory: onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
			for p.Write(user(1).Message(r.ID)) {
			}
			return false
		})},
		{name: "announced entry", directory: raw(func(id int64) []byte { return announced(id, 0x64, maxEntry) })},
		{name: "announced result", directory: raw(func(id int64) []byte { return announced(id, 0x65, maxEntry) })},
		{name: "announced 2 GB", directory: raw(func(id int64) []byte { return announced(id, 0x64, 1<<31-1) })},
		{name: "nested entry", directory: raw(func(id int64) []byte { return nested(id, 0x64, 1_000_000) })},
		{name: "nested result", directory: raw(func(id int64) []byte { return nested(id, 0x65, 20_000) })},
		{name: "reference of 15 MB", directory: raw(func(id int64) []byte { return reference(id, 15_000_000) })},
		{name: "references without end", directory: onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			message := bytes.Repeat(reference(r.ID, 100), 1000)
			for range 1000 * scale {
				p.Write(message)
			}
			return false
		})},
		{name: "result text of 100 KB", directory: raw(func(id int64) []byte {
			return fakeldap.Result(id, ldap.ApplicationSearchResultDone, 1, "", strings.Repeat("\u202e\x1b[31m", 12_000))
		})},
		{name: "result text of 15 MB", directory: raw(func(id int64) []byte {
			return fakeldap.Result(id, ldap.ApplicationSearchResultDone, 1, strings.Repeat("x", 15_000_000), "")
		})},
		{name: "DN of many levels", posture: true, rootDSE: descriptors, directory: privileged("CN=u," + strings.Repeat("O=,", 3_000_000) + fakeldap.Base)},
		{name: "DNs of 1 MB", directory: entries(5*scale, func(n int) fakeldap.RawEntry {
			e := user(n)
			e.DN = "CN=" + strings.Repeat("x", 1<<20) + "," + fakeldap.Base
			return e
		})},
		{name: "ranges that repeat", posture: true, directory: endlessMembers(2, func(int) string { return memberDN(1) })},
	}
}

// endlessAttacks returns the attacks that last until a limit of many objects.
func endlessAttacks() []attack {
	return []attack{
		{name: "one page without end", directory: onUsers(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			page := bytes.Repeat(slices.Concat(user(1).Message(r.ID), user(2).Message(r.ID)), 500)
			for p.Write(page) {
			}
			return false
		})},
		{name: "members without end", posture: true, bound: largeMemoryBound, directory: endlessMembers(100_000, memberDN)},
		{name: "members without end after a run", posture: true, before: groupOf(1000, 1, memberDN), directory: endlessMembers(100_000, memberDN)},
	}
}

// randomDirectory returns an answer that chooses among all forms at random for each request.
func randomDirectory(random *rand.Rand) searchAnswer {
	seed := random.Uint64()
	attacks := directoryAttacks(1)
	requests := uint64(0)
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		requests++
		pick := rand.New(rand.NewPCG(seed, requests))
		if pick.IntN(4) > 0 { // a page with some entries of random sizes
			for n := range pick.IntN(50) {
				size := 1 << pick.IntN(24)
				value := strings.Repeat(string(rune(pick.IntN(0x3000))), size/4)
				if !p.Write(user(n+int(requests)*50, []string{"mail", value}).Message(r.ID)) {
					return false
				}
			}
			return p.Send(fakeldap.Done(r.ID, pick.IntN(8)/7*pick.IntN(90), fakeldap.Paging([]string{"", "next"}[pick.IntN(2)])))
		}
		return attacks[pick.IntN(len(attacks))].directory(p, r)
	}
}
