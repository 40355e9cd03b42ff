package gateway

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

func TestChallenges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		fields []string
		want   []string
	}{
		{"none", nil, nil},
		{"one", []string{"NTLM"}, []string{"NTLM"}},
		{"several fields", []string{"Negotiate", "NTLM", `Basic realm="x"`}, []string{"Negotiate", "NTLM", "Basic"}},
		{"one field", []string{`Negotiate, NTLM, Basic realm="a, b", charset="UTF-8"`}, []string{"Negotiate", "NTLM", "Basic"}},
		{"parameters", []string{`Digest realm="Basic, \", NTLM", nonce = "x", qop="auth,auth-int"`}, []string{"Digest"}},
		{"token", []string{"NTLM TlRMTVNTUAACAAAA=="}, []string{"NTLM"}},
		{"repeated", []string{"NTLM", "NTLM"}, []string{"NTLM"}},
		{"empty", []string{"", ", ,"}, nil},
		{"not a scheme", []string{"<script>", "a_very_long_name_that_is_no_scheme"}, nil},
		{"too many", []string{"a,b,c,d,e,f,g,h"}, []string{"a", "b", "c", "d", "e", "f"}},
	} {
		if got := challenges(test.fields); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestTunnelErrors checks what a proxy's response to CONNECT means.
func TestTunnelErrors(t *testing.T) {
	t.Parallel()
	fields := func(name string, values ...string) http.Header { return http.Header{name: values} }
	for _, test := range []struct {
		name    string
		status  int
		header  http.Header
		class   fault.Class
		reason  error
		message string
		remedy  []string // parts of it
	}{
		{"no challenge", 407, nil, fault.Refused, errProxyCredentials, "", []string{"proxy.username"}},
		{"Basic", 407, fields("Proxy-Authenticate", "basic"), fault.Refused, errProxyCredentials, "", []string{"proxy.username"}},
		{"Basic among others", 407, fields("Proxy-Authenticate", "Negotiate", "NTLM", "Basic realm=x"), fault.Refused, errProxyCredentials, "", []string{"proxy.username"}},
		{"NTLM", 407, fields("Proxy-Authenticate", "NTLM"), fault.Refused, errProxyScheme, "only NTLM", []string{"cntlm", "gateway.test:443"}},
		{"Negotiate and NTLM", 407, fields("Proxy-Authenticate", "Negotiate", "NTLM"), fault.Refused, errProxyScheme, "only Negotiate, NTLM", []string{"cntlm", "gateway.test:443"}},
		{"Digest", 407, fields("Proxy-Authenticate", `Digest realm="x"`), fault.Refused, errProxyScheme, "only Digest", []string{"Basic"}},
		{"unauthorized", 401, nil, fault.Refused, errProxyCredentials, "", []string{"proxy.username"}},
		{"forbidden", 403, fields("X-Squid-Error", "ERR_ACCESS_DENIED 0"), fault.Refused, errProxyRefuses, "ERR_ACCESS_DENIED", []string{"gateway.test:443", "the.setting"}},
		{"redirect", 302, fields("Location", "https://portal.test/?secret"), fault.Refused, errProxyPage, "", []string{"gateway.test:443", "page"}},
		{"captive portal", 511, nil, fault.Refused, errNetworkLogin, "", []string{"log this machine in"}},
		{"no DNS", 503, fields("X-Squid-Error", "ERR_DNS_FAIL 0"), fault.Transient, errProxyFailed, "ERR_DNS_FAIL", []string{"gateway.test:443", "the.setting"}},
		{"no DNS, RFC 9209", 502, fields("Proxy-Status", `proxy.test; error=dns_error; rcode="NXDOMAIN"`), fault.Transient, errProxyFailed, "dns_error", []string{"the.setting"}},
		{"unknown header", 502, fields("X-Squid-Error", "<secret>"), fault.Transient, errProxyFailed, "", []string{"the.setting"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tunnel := &tunnelError{"proxy.test:8080", "gateway.test:443", test.status, test.header}
			err := tunnel.explain("the.setting")
			faulttest.Check(t, err, fault.Error{Class: test.class, Op: "connect through proxy", Object: "proxy.test:8080"}, test.reason, test.remedy...)
			want := responseError{Status: test.status, Reason: test.reason, Message: test.message}
			if got, is := errors.AsType[*responseError](err); !is || *got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
