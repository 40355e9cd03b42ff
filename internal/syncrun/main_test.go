package syncrun

import (
	"net"
	"os"
	"testing"

	"adconnector/test/fakedns"
)

// dns is the DNS server of all tests. Each test has its own domain.
var dns fakedns.Server

func TestMain(m *testing.M) {
	net.DefaultResolver = dns.Resolver()
	os.Exit(m.Run())
}
