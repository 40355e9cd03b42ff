package fakedns_test

import (
	"errors"
	"net"
	"slices"
	"testing"

	"adconnector/test/fakedns"
)

func TestResolver(t *testing.T) {
	t.Parallel()
	const service = "_ldap._tcp.dc._msdcs.corp.example"
	server := &fakedns.Server{}
	server.Set(service, fakedns.SRV("dc1.corp.example", 389, 0), fakedns.SRV("dc2.corp.example.", 1389, 0), fakedns.SRV("dc3.corp.example", 2389, 10))
	server.Set("DC.corp.example", fakedns.A("127.0.0.1"), fakedns.A("127.0.0.2"))
	resolver := server.Resolver()
	firstTargets, firstAddresses := map[string]bool{}, map[string]bool{}
	for range 100 {
		_, records, err := resolver.LookupSRV(t.Context(), "ldap", "tcp", "dc._msdcs.corp.example")
		if err != nil || len(records) != 3 || records[2].Target != "dc3.corp.example." || records[2].Port != 2389 || records[2].Priority != 10 {
			t.Fatalf("records %v, error %v", records, err)
		}
		firstTargets[records[0].Target] = true
		addresses, err := resolver.LookupHost(t.Context(), "dc.corp.example")
		if err != nil || len(addresses) != 2 {
			t.Fatalf("addresses %v, error %v", addresses, err)
		}
		firstAddresses[addresses[0]] = true
		slices.Sort(addresses)
		if want := []string{"127.0.0.1", "127.0.0.2"}; !slices.Equal(addresses, want) {
			t.Fatalf("addresses %v, want %v", addresses, want)
		}
	}
	if len(firstTargets) != 2 || len(firstAddresses) != 2 {
		t.Errorf("the first ones are always %v and %v", firstTargets, firstAddresses)
	}
	if n := server.Queries(service); n != 100 {
		t.Errorf("%d queries", n)
	}
}

func TestNameDoesNotExist(t *testing.T) {
	t.Parallel()
	server := &fakedns.Server{}
	server.Set("gone.corp.example", fakedns.A("127.0.0.1"))
	server.Set("gone.corp.example")
	for _, name := range []string{"gone.corp.example", "never.corp.example"} {
		_, err := server.Resolver().LookupHost(t.Context(), name)
		if notFound, ok := errors.AsType[*net.DNSError](err); !ok || !notFound.IsNotFound {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
