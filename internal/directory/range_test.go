package directory

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
)

// rangeHandler returns three values of member for each request, as a domain controller with
// a small limit. It calls before with the first index of each request.
func rangeHandler(values *[]string, usn *int, before func(first int)) func(p *fakeldap.Peer, r fakeldap.Request) bool {
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		text, _ := strings.CutPrefix(r.Attributes[0], "member;range=")
		first, err := strconv.Atoi(strings.TrimSuffix(text, "-*"))
		if err != nil {
			return p.Send(fakeldap.Done(r.ID, 2))
		}
		before(first)
		if *values == nil {
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}
		const limit = 3
		end, option := len(*values), "*"
		if end > first+limit {
			end = first + limit
			option = strconv.Itoa(end - 1)
		}
		e := fakeldap.NewEntry("<GUID="+strings.Repeat("00", 16)+">;CN=g", []string{"uSNChanged", strconv.Itoa(*usn)})
		if first < len(*values) {
			e.Attributes = append(e.Attributes, append([]string{fmt.Sprintf("member;range=%d-%s", first, option)}, (*values)[first:end]...))
		}
		return p.Send(e.Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}
}

func TestReadValues(t *testing.T) {
	t.Parallel()
	for _, count := range []int{0, 1, 3, 4, 6, 10} {
		values := []string{}
		for n := range count {
			values = append(values, fmt.Sprint("v", n))
		}
		usn := 1
		server := fakeldap.Serve(t, nil, fakeldap.Directory(rangeHandler(&values, &usn, func(int) {})))
		var got []string
		found, err := connect(t, options(server)).ReadValues(t.Context(), "DC=corp", ad.GUID{1}, "member", func(values [][]byte) error {
			for _, v := range values {
				got = append(got, string(v))
			}
			return nil
		})
		if err != nil || !found || strings.Join(got, " ") != strings.Join(values, " ") {
			t.Errorf("%d values: %v, %t, %v", count, got, found, err)
		}
	}
}

// TestReadValuesChanged checks that a change between two ranges is detected, and that the
// session can be used again.
func TestReadValuesChanged(t *testing.T) {
	t.Parallel()
	values, usn := []string{"a", "b", "c", "d", "e", "f", "g"}, 1
	initial := values
	change := func(int) {}
	server := fakeldap.Serve(t, nil, fakeldap.Directory(rangeHandler(&values, &usn, func(first int) { change(first) })))
	session := connect(t, options(server))
	read := func() (found bool, err error) {
		return session.ReadValues(t.Context(), "DC=corp", ad.GUID{1}, "member", func([][]byte) error { return nil })
	}
	for name, apply := range map[string]func(){
		"uSNChanged increased":                        func() { usn++ },
		"one value deleted":                           func() { values = append([]string{"a"}, values[2:]...) },
		"several values deleted":                      func() { values = values[:2] },
		"object deleted":                              func() { values = nil },
		"uSNChanged increased, values deleted":        func() { usn, values = usn+1, values[:2] },
		"uSNChanged increased, end after first range": func() { usn, values = usn+1, values[:3] },
	} {
		change = func(first int) {
			if first == 2 { // the second range starts with the last value of the first
				apply()
			}
		}
		if _, err := read(); !errors.Is(err, ErrObjectChanged) || fault.ClassOf(err) != fault.Incomplete {
			t.Errorf("%s: %v", name, err)
		}
		values, change = initial, func(int) {}
		if found, err := read(); err != nil || !found {
			t.Errorf("after %s: %t, %v", name, found, err)
		}
	}
	values = nil
	if found, err := read(); err != nil || found {
		t.Errorf("missing object: %t, %v", found, err)
	}
}

// TestReadValuesWithoutProgress checks that an announced range without values is an error.
func TestReadValuesWithoutProgress(t *testing.T) {
	t.Parallel()
	requests := 0
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		requests++
		return requests < 5 && p.Send(fakeldap.NewEntry("CN=g", []string{"member;range=0-2"}).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	_, err := connect(t, options(server)).ReadValues(t.Context(), "DC=corp", ad.GUID{1}, "member", func([][]byte) error { return nil })
	wantFailure(t, err, fault.Error{Class: fault.Incomplete, Op: "read", Object: "member of " + ad.GUID{1}.String() + " on " + address(server)}, errNoProgress, faulttest.AnyRemedy)
}

// TestEndlessValues checks that an attribute without an end fails, whether its values repeat
// or are new.
func TestEndlessValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		value func(n int) string
		cause error
		text  string
	}{
		{"the same value", func(int) string { return "v" }, errNoNewValues, strconv.Itoa(maxRangesWithoutNew)},
		{"few values", func(n int) string { return fmt.Sprint(n % 7) }, errNoNewValues, strconv.Itoa(maxRangesWithoutNew)},
		{"new values", func(n int) string { return fmt.Sprint(n) }, errTooManyValues, "5000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				first := 0
				if _, err := fmt.Sscanf(r.Attributes[0], "member;range=%d-*", &first); err != nil {
					return false
				}
				values := []string{fmt.Sprintf("member;range=%d-%d", first, first+2), test.value(first), test.value(first + 1), test.value(first + 2)}
				return p.Send(fakeldap.NewEntry("CN=g", values).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
			}))
			o := options(server)
			o.maxValues = 5000
			read := 0
			_, err := connect(t, o).ReadValues(t.Context(), "DC=corp", ad.GUID{1}, "member", func(values [][]byte) error {
				read += len(values)
				return nil
			})
			wantFailure(t, err, fault.Error{Class: fault.Incomplete, Op: "read", Object: "member of " + ad.GUID{1}.String() + " on " + address(server)}, test.cause, faulttest.AnyRemedy)
			if !strings.Contains(err.Error(), test.text) || read > o.maxValues+3 {
				t.Errorf("after %d values: %v", read, err)
			}
		})
	}
}

func TestSearchExtendedDN(t *testing.T) {
	t.Parallel()
	const dn = "<GUID=b0a92323596cd24b9e86eec4d73a8b8d>;<SID=01020000000000052000000020020000>;CN=x,DC=corp"
	server := fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry(dn, []string{"cn", dn})})))
	q := userSearch
	for _, q.ExtendedDN = range []bool{true, false} {
		want, extended := dn, ""
		if q.ExtendedDN {
			want, extended = "CN=x,DC=corp", dn
		}
		if _, err := connect(t, options(server)).Search(t.Context(), q, func(e *ad.Entry) error {
			if string(e.DN) != want || string(e.ExtendedDN) != extended || string(e.First(0)) != dn {
				t.Errorf("%s", format(e))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestSearchDescriptors checks that the attribute is never requested without the control, and that
// its slot stays empty then.
func TestSearchDescriptors(t *testing.T) {
	t.Parallel()
	requests := make(chan fakeldap.Request, 1)
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		requests <- r
		values := [][]string{{"cn", "x"}}
		if slices.Contains(r.Attributes, ad.AttributeDescriptor) {
			values = append(values, []string{ad.AttributeDescriptor, "descriptor"})
		}
		return p.Send(fakeldap.NewEntry("CN=x", values...).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	q := userSearch
	q.Attributes = []string{ad.AttributeDescriptor, "cn"}
	for _, q.Descriptors = range []bool{true, false} {
		if _, err := connect(t, options(server)).Search(t.Context(), q, func(e *ad.Entry) error {
			if string(e.First(1)) != "x" || (string(e.First(0)) == "descriptor") != q.Descriptors {
				t.Errorf("%s", format(e))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		last := <-requests
		if slices.Contains(last.Controls, controlSDFlags) != q.Descriptors || slices.Contains(last.Attributes, ad.AttributeDescriptor) != q.Descriptors {
			t.Errorf("requested %v with the controls %v", last.Attributes, last.Controls)
		}
	}
}
