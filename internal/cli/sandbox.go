package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/sandbox/inventory"
)

// sandboxOptions are the flags of the command.
type sandboxOptions struct {
	users, groups        int
	seed                 uint64
	ldap, ldaps, gateway string
	envOut               string
	posture              bool

	intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool // for tests: gatewayserver.Options
}

func (p *program) sandboxCommand() *cobra.Command {
	var o sandboxOptions
	command := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve a directory and a gateway on loopback, to try the connector against",
		Long: `Serves a directory and a gateway on loopback, to try the connector against.

The directory behaves as a domain controller does where the connector looks; its
people are made from the seed. The gateway keeps the contract, is strict about
requests, and shows what it holds at /inventory/users and /inventory/groups.
With --posture its profile asks for security posture too, for which there are
/inventory/roles and /inventory/domains.
--env-out writes the settings with which the connector runs against the two, their
passwords made for this run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sandbox(cmd.Context(), o) },
	}
	o.flags(command, sandboxOptions{users: 1000, groups: 100, ldap: "127.0.0.1:10389", ldaps: "127.0.0.1:10636", gateway: "127.0.0.1:18080"})
	command.Flags().BoolVar(&o.posture, "posture", false, "the profile asks for security posture, too")
	command.Flags().StringVar(&o.envOut, "env-out", "", "write an env file for the connector to `FILE`")
	return command
}

// flags adds those that say what the sandbox is.
func (o *sandboxOptions) flags(command *cobra.Command, unless sandboxOptions) {
	flags := command.Flags()
	flags.IntVar(&o.users, "users", unless.users, "users in the directory")
	flags.IntVar(&o.groups, "groups", unless.groups, "groups in the directory")
	flags.Uint64Var(&o.seed, "seed", 1, "the same seed makes the same directory")
	flags.StringVar(&o.ldap, "ldap", unless.ldap, "`ADDRESS` for LDAP and StartTLS, loopback only, port 0: any; empty: none")
	flags.StringVar(&o.ldaps, "ldaps", unless.ldaps, "`ADDRESS` for LDAPS, loopback only, port 0: any; empty: none")
	flags.StringVar(&o.gateway, "gateway", unless.gateway, "`ADDRESS` of the gateway, loopback only, port 0: any")
}

func (p *program) sandbox(ctx context.Context, o sandboxOptions) error {
	e, err := open(o)
	if err != nil {
		return err
	}
	defer e.close()
	var where strings.Builder
	if o.envOut != "" {
		absolute, err := filepath.Abs(o.envOut)
		if err == nil {
			err = e.writeEnv(o.envOut, "service.cron-expression=*/10 * * * *", "service.state-dir="+absolute+".state")
		}
		if err != nil {
			return misused(fmt.Errorf("--env-out: %w", err), "choose a file that can be written")
		}
		fmt.Fprintf(&where, "settings   %s\n", o.envOut)
	}
	fmt.Fprintf(&where, "gateway    %s\ninventory  %s\n", e.url(), e.inventory())
	for _, address := range e.addresses() {
		fmt.Fprintf(&where, "directory  %s as %s\n", address, e.directory.BindDN())
	}
	if _, err := io.WriteString(p.stdout, where.String()); err != nil {
		return err
	}
	return e.serve(ctx)
}

// embedded is a sandbox whose ports are open.
type embedded struct {
	directory          *domaincontroller.Server
	gateway            *gatewayserver.Server
	options            gatewayserver.Options
	web, plain, secure net.Listener // the latter two may be nil
}

// open makes the sandbox. The ports come first: they are what may be wrong.
func open(o sandboxOptions) (*embedded, error) {
	if o.users < 0 || o.groups < 0 {
		return nil, misused(errors.New("--users and --groups cannot be negative"), "")
	}
	e := &embedded{}
	for _, flag := range []struct {
		name, address string
		listener      *net.Listener
	}{{"--gateway", o.gateway, &e.web}, {"--ldap", o.ldap, &e.plain}, {"--ldaps", o.ldaps, &e.secure}} {
		if flag.address == "" && flag.listener != &e.web {
			continue
		}
		listener, err := listenLoopback(flag.name, flag.address)
		if err != nil {
			e.close()
			return nil, err
		}
		*flag.listener = listener
	}
	password := rand.Text()
	e.directory = domaincontroller.New(domaincontroller.Options{
		Users: o.users, Groups: o.groups, Seed: o.seed, Password: password, ReadsDeleted: true,
	})
	e.options = gatewayserver.Options{
		CustomerUUID: uuid.NewString(), ConnectionUUID: uuid.NewString(), ProfileUUID: uuid.NewString(),
		Username: "sandbox", Password: rand.Text(), ClientID: "sandbox", ClientSecret: rand.Text(),
		Intercept: o.intercept,
	}
	e.options.Connection = connectionTo(e.directory, e.plain, e.secure, e.options.ConnectionUUID, password)
	e.options.Profile = &gateway.Profile{
		ProfileUUID: e.options.ProfileUUID, Name: "Sandbox", BaseContext: e.directory.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY",
	}
	if o.posture {
		e.options.Profile.Assets = "IDENTITIES_WITH_SECURITY_POSTURE"
	}
	e.gateway = gatewayserver.New(e.options)
	return e, nil
}

func (e *embedded) url() string       { return "http://" + e.web.Addr().String() }
func (e *embedded) inventory() string { return e.url() + "/inventory/users" }

// addresses are where the directory listens.
func (e *embedded) addresses() []string {
	var addresses []string
	if e.plain != nil {
		addresses = append(addresses, "ldap://"+e.plain.Addr().String())
	}
	if e.secure != nil {
		addresses = append(addresses, "ldaps://"+e.secure.Addr().String())
	}
	return addresses
}

// close gives the ports back; serve has done so when it has returned.
func (e *embedded) close() {
	for _, listener := range []net.Listener{e.web, e.plain, e.secure} {
		if listener != nil {
			listener.Close()
		}
	}
}

// serve serves both until ctx ends.
func (e *embedded) serve(ctx context.Context) error {
	server := &http.Server{Handler: inventory.Handler(e.gateway), ReadHeaderTimeout: 10 * time.Second}
	both, ctx := errgroup.WithContext(ctx)
	if e.plain != nil || e.secure != nil {
		both.Go(func() error { return e.directory.Serve(ctx, e.plain, e.secure) })
	}
	both.Go(func() error {
		if err := server.Serve(e.web); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", e.web.Addr(), err)
		}
		return nil
	})
	both.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 300*time.Millisecond)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			return server.Close() // who still talks to a sandbox is cut off
		}
		return nil
	})
	return both.Wait()
}

// writeEnv writes the settings with which the connector runs against the sandbox,
// and more of them.
func (e *embedded) writeEnv(path string, more ...string) error {
	o := e.options
	lines := append([]string{
		"# Made by adconnector: good until its sandbox ends.",
		"connector.api.url=" + e.url(),
		"qualys.customerUuid=" + o.CustomerUUID,
		"qualys.connectionUuid=" + o.ConnectionUUID,
		"qualys.profileUuid=" + o.ProfileUUID,
		"authentication.type=BASIC",
		"qualys.user.username=" + o.Username,
		"qualys.user.password=" + o.Password,
	}, more...)
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// connectionTo is the connection as somebody at the console would enter it, the
// protected one where there are two; nil where there is no directory to reach.
func connectionTo(directory *domaincontroller.Server, plain, secure net.Listener, id, password string) *gatewayserver.Connection {
	listener, protocol := secure, "LDAPS"
	if listener == nil {
		listener, protocol = plain, "STARTTLS"
	}
	if listener == nil {
		return nil
	}
	address := listener.Addr().(*net.TCPAddr)
	return &gatewayserver.Connection{ConnectionUUID: id, Name: "Sandbox", Authentication: gatewayserver.Authentication{
		Type: protocol, Host: address.IP.String(), Port: address.Port, BindDN: directory.BindDN(), Password: password,
		Certificate: string(directory.CertificatePEM()),
	}}
}

// listenLoopback refuses other addresses: nothing here is protected.
func listenLoopback(flag, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return nil, misused(fmt.Errorf("%s %s is not an address", flag, address), "use host:port")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, misused(fmt.Errorf("%s %s: the sandbox listens on loopback only", flag, address), "use an address such as 127.0.0.1:"+port)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, misused(fmt.Errorf("%s %s: the port is in use, perhaps by another sandbox", flag, address), "stop that one or choose another port")
		}
		return nil, misused(fmt.Errorf("%s %s: %w", flag, address, err), "choose another address")
	}
	return listener, nil
}

// freeAddress is an address on which something else is to listen in a moment.
func freeAddress(flag, address string) (string, error) {
	listener, err := listenLoopback(flag, address)
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
