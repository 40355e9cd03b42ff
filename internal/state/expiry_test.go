package state

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestUrgencyOf(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for remaining, want := range map[time.Duration]Urgency{
		31 * day: NotUrgent, 30*day + time.Second: NotUrgent, 30 * day: ExpiryNotice, 14*day + time.Second: ExpiryNotice,
		14 * day: ExpiryWarning, 0: ExpiryWarning, -day: ExpiryWarning,
	} {
		if got := UrgencyOf(testStart.Add(remaining), testStart); got != want {
			t.Errorf("%s: %d, want %d", remaining, got, want)
		}
	}
	if got := UrgencyOf(time.Time{}, testStart); got != NotUrgent {
		t.Errorf("zero time: %d", got)
	}
}

func TestMergeExpiries(t *testing.T) {
	t.Parallel()
	soon, later := testStart.Add(time.Hour), testStart.Add(2*time.Hour)
	noted := func(e Expiry, before time.Duration) Expiry {
		e.NotedAt = testStart.Add(-before)
		return e
	}
	dc1 := Expiry{Subject: DirectoryCertificate, Name: "dc1:636", Issuer: "CA", At: soon, NotedAt: testStart}
	dc2 := Expiry{Subject: DirectoryCertificate, Name: "dc2:636", Issuer: "CA", At: later, NotedAt: testStart}
	renewed, otherIssuer, logged := dc1, dc1, noted(dc1, time.Hour)
	renewed.At, otherIssuer.Issuer, logged.LoggedAt = later, "Other", testStart.Add(-time.Hour)
	keepsLog := dc1
	keepsLog.LoggedAt = logged.LoggedAt
	password := Expiry{Subject: BindPassword, Name: "svc-a", At: soon, NotedAt: testStart}
	other := Expiry{Subject: BindPassword, Name: "svc-b", NotedAt: testStart} // never expires
	for name, c := range map[string]struct {
		recorded, read, want []Expiry
		changed              bool
	}{
		"nothing":                           {nil, nil, nil, false},
		"first":                             {nil, []Expiry{dc2, dc1}, []Expiry{dc1, dc2}, true},
		"the same an hour later":            {[]Expiry{logged}, []Expiry{dc1}, []Expiry{keepsLog}, false},
		"the same a day later":              {[]Expiry{noted(dc1, ExpiryInterval)}, []Expiry{dc1}, []Expiry{dc1}, true},
		"renewed":                           {[]Expiry{logged}, []Expiry{renewed}, []Expiry{renewed}, true},
		"other issuer":                      {[]Expiry{dc1}, []Expiry{otherIssuer}, []Expiry{otherIssuer}, true},
		"another server":                    {[]Expiry{noted(dc1, 48*time.Hour)}, []Expiry{dc2}, []Expiry{noted(dc1, 48*time.Hour), dc2}, true},
		"a server that was not seen lately": {[]Expiry{noted(dc1, 8*24*time.Hour), dc2}, []Expiry{dc2}, []Expiry{dc2}, true},
		"another account":                   {[]Expiry{password}, []Expiry{other}, []Expiry{other}, true},
		"account not read":                  {[]Expiry{noted(password, 8*24*time.Hour)}, nil, []Expiry{noted(password, 8*24*time.Hour)}, false},
		"never comes last":                  {nil, []Expiry{other, dc1}, []Expiry{dc1, other}, true},
	} {
		merged, changed := MergeExpiries(c.recorded, c.read, testStart)
		if !reflect.DeepEqual(merged, c.want) || changed != c.changed {
			t.Errorf("%s: got %+v, %t, want %+v, %t", name, merged, changed, c.want, c.changed)
		}
	}
	var many []Expiry
	for n := range 2 * maxExpiries {
		many = append(many, Expiry{Subject: DirectoryCertificate, Name: fmt.Sprint(n), At: testStart.Add(time.Duration(-n) * time.Hour)})
	}
	if merged, _ := MergeExpiries(nil, many, testStart); len(merged) != maxExpiries || merged[0].Name != fmt.Sprint(2*maxExpiries-1) {
		t.Errorf("%d, first %+v", len(merged), merged[0])
	}
}

func TestSetExpiries(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	want := []Expiry{{Subject: GatewayCertificate, Name: "gateway", Issuer: "CA", At: testStart, NotedAt: testStart, Remedy: "renew"}}
	must(t, s.SetExpiries(want))
	if got, err := s.Expiries(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, error %v", got, err)
	}
}
