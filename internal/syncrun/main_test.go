package syncrun

import (
	"net"
	"testing"

	"adconnector/test/fakedns"
	"adconnector/test/leaktest"
)

// dns is the DNS server of all tests. Each test has its own domain.
var dns fakedns.Server

func TestMain(m *testing.M) {
	net.DefaultResolver = dns.Resolver()
	leaktest.Main(m)
}
