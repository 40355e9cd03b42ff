package directory

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
)

// ranged answers as a domain controller that gives three values at once. Each
// request is shown to look before it is answered.
func ranged(values *[]string, usn *int, look func(from int)) func(p *fakeldap.Peer, r fakeldap.Request) bool {
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		text, _ := strings.CutPrefix(r.Attributes[0], "member;range=")
		from, err := strconv.Atoi(strings.TrimSuffix(text, "-*"))
		if err != nil {
			return p.Send(fakeldap.Done(r.ID, 2))
		}
		look(from)
		if *values == nil {
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}
		const most = 3
		end, option := len(*values), "*"
		if end > from+most {
			end = from + most
			option = strconv.Itoa(end - 1)
		}
		e := fakeldap.NewEntry("<GUID="+strings.Repeat("00", 16)+">;CN=g", []string{"uSNChanged", strconv.Itoa(*usn)})
		if from < len(*values) {
			e.Attributes = append(e.Attributes, append([]string{fmt.Sprintf("member;range=%d-%s", from, option)}, (*values)[from:end]...))
		}
		return p.Send(e.Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	for _, count := range []int{0, 1, 3, 4, 6, 10} {
		values := []string{}
		for n := range count {
			values = append(values, fmt.Sprint("v", n))
		}
		usn := 1
		server := fakeldap.Serve(t, nil, fakeldap.Directory(ranged(&values, &usn, func(int) {})))
		var got []string
		found, err := connect(t, options(server)).Values(t.Context(), "DC=corp", ad.GUID{1}, "member", func(v []byte) error {
			got = append(got, string(v))
			return nil
		})
		if err != nil || !found || strings.Join(got, " ") != strings.Join(values, " ") {
			t.Errorf("%d values: %v, %t, %v", count, got, found, err)
		}
	}
}

// Values of two states are no list, and the session is good for another attempt.
func TestValuesThatChange(t *testing.T) {
	t.Parallel()
	values, usn := []string{"a", "b", "c", "d", "e", "f", "g"}, 1
	whole := values
	change := func(int) {}
	server := fakeldap.Serve(t, nil, fakeldap.Directory(ranged(&values, &usn, func(from int) { change(from) })))
	session := connect(t, options(server))
	read := func() (found bool, err error) {
		return session.Values(t.Context(), "DC=corp", ad.GUID{1}, "member", func([]byte) error { return nil })
	}
	for name, c := range map[string]func(){
		"another state":      func() { usn++ },
		"one was deleted":    func() { values = append([]string{"a"}, values[2:]...) },
		"many were deleted":  func() { values = values[:2] },
		"gone meanwhile":     func() { values = nil },
		"fewer than before":  func() { usn, values = usn+1, values[:2] },
		"just as many fewer": func() { usn, values = usn+1, values[:3] },
	} {
		change = func(from int) {
			if from == 2 { // the last value of the first range, again
				c()
			}
		}
		if _, err := read(); !errors.Is(err, ErrChanged) || fault.ClassOf(err) != fault.Incomplete {
			t.Errorf("%s: %v", name, err)
		}
		values, change = whole, func(int) {}
		if found, err := read(); err != nil || !found {
			t.Errorf("after %s: %t, %v", name, found, err)
		}
	}
	values = nil
	if found, err := read(); err != nil || found {
		t.Errorf("gone: %t, %v", found, err)
	}
}

// A server that promises more and gives nothing is not asked forever.
func TestValuesWithoutProgress(t *testing.T) {
	t.Parallel()
	requests := 0
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		requests++
		return requests < 5 && p.Send(fakeldap.NewEntry("CN=g", []string{"member;range=0-2"}).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	_, err := connect(t, options(server)).Values(t.Context(), "DC=corp", ad.GUID{1}, "member", func([]byte) error { return nil })
	wantFailure(t, err, fault.Error{Class: fault.Incomplete, Op: "read", Object: "member of " + ad.GUID{1}.String() + " on " + addressOf(server)}, errNoProgress, faulttest.AnyRemedy)
}

func TestSearchExtendedDN(t *testing.T) {
	t.Parallel()
	const dn = "<GUID=b0a92323596cd24b9e86eec4d73a8b8d>;<SID=01020000000000052000000020020000>;CN=x,DC=corp"
	server := fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry(dn, []string{"cn", dn})})))
	q := people
	for _, q.ExtendedDN = range []bool{true, false} {
		want := dn
		if q.ExtendedDN {
			want = "CN=x,DC=corp"
		}
		if _, err := connect(t, options(server)).Search(t.Context(), q, func(e *ad.Entry) error {
			if string(e.DN) != want || string(e.First(0)) != dn {
				t.Errorf("%s", dump(e))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
