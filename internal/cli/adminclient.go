package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/loopback"
	"adconnector/internal/status"
)

// Reasons why the status report of the daemon is not available.
var (
	errNoEndpoint     = errors.New("service.admin.address is empty")
	errNotConnector   = errors.New("the server is not a connector")
	errOtherConnector = errors.New("the server is another connector")
)

const (
	remedyUniqueAddress = "give each connector on this host its own service.admin.address"
	remedyOtherProgram  = "another program uses this address: set service.admin.address to the address of the daemon"
	remedyStuck         = "check the daemon's log, and restart the daemon if it is stuck"
)

// fetchTimeout is the default time for a response of the daemon on this host.
const fetchTimeout = 5 * time.Second

// fetchReport returns the status report of the daemon at address. It returns an error if the
// daemon belongs to another instance.
func (p *program) fetchReport(ctx context.Context, address string, instance status.Instance) (status.Report, error) {
	var report status.Report
	body, err := p.fetch(ctx, address, "/status")
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(body, &report); err != nil || report.From != status.FromDaemon {
		return report, fetchFrom(address).Failed(fault.Transient, errNotConnector, remedyUniqueAddress)
	}
	var differences []string
	for _, part := range []struct{ name, got, want string }{
		{"connection", report.ConnectionUUID, instance.ConnectionUUID},
		{"profile", report.ProfileUUID, instance.ProfileUUID},
		{"state directory", report.StateDir, instance.StateDir},
	} {
		if part.got != part.want {
			differences = append(differences, fmt.Sprintf("its %s is %s, not %s", part.name, part.got, part.want))
		}
	}
	if len(differences) > 0 {
		err := fmt.Errorf("%w: %s", errOtherConnector, strings.Join(differences, ", "))
		return report, fetchFrom(address).Failed(fault.Transient, err, remedyUniqueAddress+", or use the env file of the running connector")
	}
	return report, nil
}

// fetch returns a document of the admin endpoint on this host.
func (p *program) fetch(ctx context.Context, address, path string) ([]byte, error) {
	if address == "" {
		return nil, fetchFrom("").Failed(fault.Transient, errNoEndpoint, "set service.admin.address to read the status of the daemon")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // the daemon listens on all addresses
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.hooks.fetchTimeout, fetchTimeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, err
	}
	// Without a proxy and without redirects, the request does not leave the host.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: loopback.Dial(new(net.Dialer).DialContext)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		if wrapper := new(url.Error); errors.As(err, &wrapper) {
			err = wrapper.Err // without method and URL
		}
		remedy := "check whether a daemon runs, and check service.admin.address"
		if errors.Is(err, context.DeadlineExceeded) {
			remedy = remedyStuck
		}
		return nil, fetchFrom(address).Failed(fault.Transient, describeTimeout(err), remedy)
	}
	defer response.Body.Close()
	body, err := readBody(response)
	if err != nil {
		remedy := remedyStuck
		switch {
		case response.StatusCode == http.StatusMisdirectedRequest:
			remedy = "use service.admin.address of the daemon, or add the name to its service.admin.allowed-hosts"
		case response.StatusCode != http.StatusOK && response.StatusCode < 500: // a connector has no such responses
			err, remedy = fmt.Errorf("%w: %w", errNotConnector, err), remedyOtherProgram
		}
		return nil, fetchFrom(address).Failed(fault.Transient, describeTimeout(err), remedy)
	}
	return body, nil
}

// readBody returns the body of a response, of which it reads 16 MiB at most. A status other
// than 200 is an error.
func readBody(response *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		reason, _, _ := bytes.Cut(body, []byte("\n")) // a remedy can follow
		if reason = bytes.TrimSpace(reason); len(reason) == 0 {
			return nil, fmt.Errorf("status %d", response.StatusCode)
		}
		return nil, fmt.Errorf("status %d, %.300q", response.StatusCode, reason)
	}
	return body, nil
}

// fetchFrom returns the operation of a request to the admin endpoint at address, which can
// be empty.
func fetchFrom(address string) fault.Operation {
	if address == "" {
		return fault.Operation{Op: "query", Object: "daemon"}
	}
	return fault.Operation{Op: "query", Object: "daemon at " + address}
}

// interruptedFetch returns the error of a command that was interrupted during a request to
// the daemon.
func interruptedFetch(ctx context.Context) error {
	return fetchFrom("").Failed(fault.Canceled, ctx.Err(), "")
}

// describeTimeout adds the timeout to the error of a deadline.
func describeTimeout(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no response within %s: %w", fetchTimeout, err)
	}
	return err
}
