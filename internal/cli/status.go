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
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

func (p *program) statusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "Show the connector's state, its last runs, held deletions and rejections",
		Long: `Shows the connector's state, its last runs, held deletions and rejections: from
the running daemon (service.admin.address), else from the state file.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.told(p.status(cmd.Context())) },
	}
	p.outputFlag(command)
	return command
}

func (p *program) status(ctx context.Context) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	instance, err := instanceOf(c)
	if err != nil {
		return err
	}
	report, silence := p.askDaemon(ctx, c.Service.AdminAddress, instance)
	if ctx.Err() != nil {
		return interruptedBy(ctx)
	}
	if silence != nil {
		if report, err = p.readReport(c.Service.StateDir, instance); err != nil {
			if errors.Is(err, state.ErrLocked) {
				return &fault.Error{Class: fault.Locked, Err: fmt.Errorf("%w; %w", err, silence),
					Remedy: "run status where the daemon runs, as in docker exec CONTAINER adconnector status; " + fault.Remedy(silence)}
			}
			return err
		}
		report.Daemon, report.DaemonRemedy = silence.Error(), fault.Remedy(silence)
	}
	p.answers = true
	if p.output == "json" {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return report.WriteText(p.stdout, time.Now(), time.Local)
}

// interruptedBy returns the error of a command that was interrupted while it asked a daemon.
func interruptedBy(ctx context.Context) error {
	return fault.Operation{Op: "ask", Object: "the daemon"}.Failed(fault.Canceled, ctx.Err(), "")
}

// asking returns the operation of a request to the admin endpoint at address.
func asking(address string) fault.Operation {
	return fault.Operation{Op: "ask", Object: "the daemon at " + address}
}

// readReport reads the state file where no daemon answers.
func (p *program) readReport(dir string, instance status.Instance) (status.Report, error) {
	store, err := p.hooks.state.OpenReadOnly(dir)
	if err != nil {
		return status.Report{}, err
	}
	defer store.Close()
	report, err := status.Read(store, time.Now())
	report.From, report.Version, report.Instance = status.FromFile, version, instance
	return report, err
}

// instanceOf says which connector a configuration is of, whatever links lead to its
// state.
func instanceOf(c *config.Config) (status.Instance, error) {
	dir, err := filepath.Abs(c.Service.StateDir)
	if target, err := filepath.EvalSymlinks(dir); err == nil { // not: it is not there yet
		dir = target
	}
	return status.Instance{ConnectionUUID: c.Gateway.ConnectionUUID, ProfileUUID: c.Gateway.ProfileUUID, StateDir: dir}, err
}

// askTimeout is how long a daemon on this host may take to answer.
const askTimeout = 5 * time.Second

// askDaemon gets the report of the daemon at address, if it is this connector's.
func (p *program) askDaemon(ctx context.Context, address string, of status.Instance) (status.Report, error) {
	var report status.Report
	body, err := p.ask(ctx, address, "/status")
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(body, &report); err != nil || report.From != status.FromDaemon {
		return report, asking(address).Failed(fault.Transient, errNoConnector, remedyOwnAddress)
	}
	var differ []string
	for _, part := range []struct{ name, theirs, ours string }{
		{"connection", report.ConnectionUUID, of.ConnectionUUID}, {"profile", report.ProfileUUID, of.ProfileUUID}, {"state directory", report.StateDir, of.StateDir},
	} {
		if part.theirs != part.ours {
			differ = append(differ, fmt.Sprintf("its %s is %s, not %s", part.name, part.theirs, part.ours))
		}
	}
	if len(differ) > 0 {
		return report, asking(address).Failed(fault.Transient, fmt.Errorf("%w: %s", errOtherConnector, strings.Join(differ, ", ")),
			remedyOwnAddress+", or use the env file of the one that runs")
	}
	return report, nil
}

// ask gets a document of the admin endpoint on this host.
func (p *program) ask(ctx context.Context, address, path string) ([]byte, error) {
	if address == "" {
		return nil, fault.Operation{Op: "ask", Object: "the daemon"}.Failed(fault.Transient, errNoEndpoint, "set service.admin.address to see the daemon's own report")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // it listens everywhere
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.hooks.askTimeout, askTimeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, err
	}
	// Neither a proxy nor a redirect: this does not leave the host.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		if called := new(url.Error); errors.As(err, &called) {
			err = called.Err // method and URL are noise
		}
		remedy := "check whether a daemon runs, and check service.admin.address"
		if errors.Is(err, context.DeadlineExceeded) {
			remedy = remedyStuck
		}
		return nil, asking(address).Failed(fault.Transient, withTimeout(err), remedy)
	}
	defer response.Body.Close()
	body, err := readAnswer(response)
	if err != nil {
		return nil, asking(address).Failed(fault.Transient, withTimeout(err), remedyStuck)
	}
	return body, nil
}

// Why there is no report of the daemon.
var (
	errNoEndpoint     = errors.New("service.admin.address is empty")
	errNoConnector    = errors.New("it is not a connector")
	errOtherConnector = errors.New("it is another connector")
)

const (
	remedyOwnAddress = "give each connector on this host its own service.admin.address"
	remedyStuck      = "check the daemon's log, and restart the daemon if it is stuck"
)

// withTimeout adds the timeout to the error of a deadline.
func withTimeout(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", askTimeout, err)
	}
	return err
}

// readAnswer reads a document. Any status but 200 is an error.
func readAnswer(response *http.Response) ([]byte, error) {
	const most = 16 << 20
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		reason, _, _ := bytes.Cut(body, []byte("\n")) // a remedy may follow
		return nil, fmt.Errorf("status %d, %.300q", response.StatusCode, bytes.TrimSpace(reason))
	}
	return body, nil
}
