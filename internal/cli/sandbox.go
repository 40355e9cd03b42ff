package cli

import (
	"cmp"
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
	"adconnector/internal/loopback"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/sandbox/inventory"
	"adconnector/internal/syncrun"
	"adconnector/internal/webserver"
)

// sandboxOptions are the flags of the command sandbox.
type sandboxOptions struct {
	users, groups        int
	controllers          int
	seed                 uint64
	ldap, ldaps, gateway string
	envOut               string
	posture              bool
	maxCalls             int

	intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool // for tests: gatewayserver.Options
}

func (p *program) sandboxCommand() *cobra.Command {
	var o sandboxOptions
	command := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve a test directory and a test gateway on loopback",
		Long: `Serve a directory and a gateway on loopback for tests of the connector.

The directory behaves like a domain controller in everything that the connector uses.
Its objects are generated from the seed. The gateway validates requests against the
contract, and lists its assets at /inventory/users and /inventory/groups. With
--posture its profile includes security posture, and there are also /inventory/roles
and /inventory/domains.

With --controllers, several domain controllers replicate, but each one counts logons
for itself. The connector reads the first one. Many users logged on last at another
one. They listen on the address of the first one and on the following addresses, with
the same ports. The env file sets sync.last-logon to ALL_CONTROLLERS.

--env-out writes an env file for the connector. Its passwords are generated and valid
until the sandbox ends. The certificate of the directory is in FILE.pem. To try other
settings of the directory, remove the leading # from the settings at the end of FILE.`,
		Example: `  # In one terminal, with the connector in another one
  adconnector sandbox --env-out sandbox.env
  adconnector sync --env-file sandbox.env

  # A large, repeatable directory on free ports, while another sandbox runs
  adconnector sandbox --users 100000 --groups 5000 --seed 7 \
      --ldap 127.0.0.1:0 --ldaps 127.0.0.1:0 --gateway 127.0.0.1:0 --env-out large.env

  # A domain of two controllers, on 127.0.0.1 and 127.0.0.2. The second sync sends the
  # logons at the second controller.
  adconnector sandbox --controllers 2 --env-out sandbox.env
  SYNC_LAST_LOGON=REPLICATED adconnector sync --env-file sandbox.env
  adconnector sync --env-file sandbox.env`,
		Annotations: exits(meanings{exitFailed: "the directory or the gateway stopped serving", exitUsage: onlyBadUsage}, exitDone, exitFailed, exitUsage, exitInterrupted),
		Args:        noArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.sandbox(cmd.Context(), o) },
	}
	o.flags(command, sandboxOptions{users: 1000, groups: 100, controllers: 1, ldap: "127.0.0.1:10389", ldaps: "127.0.0.1:10636", gateway: "127.0.0.1:18080"})
	command.Flags().BoolVar(&o.posture, "posture", false, "include security posture in the profile")
	command.Flags().IntVar(&o.maxCalls, "max-calls", 0, "number of concurrent calls that the gateway allows, like 2 for the standard service; 0: no limit")
	command.Flags().StringVar(&o.envOut, "env-out", "", "write an env file for the connector to `FILE`")
	return command
}

// flags adds the flags with their defaults.
func (o *sandboxOptions) flags(command *cobra.Command, defaults sandboxOptions) {
	flags := command.Flags()
	flags.IntVar(&o.users, "users", defaults.users, "number of users in the directory")
	flags.IntVar(&o.groups, "groups", defaults.groups, "number of groups in the directory")
	flags.IntVar(&o.controllers, "controllers", defaults.controllers, fmt.Sprintf("number of domain controllers, 1 to %d", maxControllers))
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the generated objects")
	flags.StringVar(&o.ldap, "ldap", defaults.ldap, "`ADDRESS` for LDAP and StartTLS, loopback only; port 0: any free port; empty: not served")
	flags.StringVar(&o.ldaps, "ldaps", defaults.ldaps, "`ADDRESS` for LDAPS, loopback only; port 0: any free port; empty: not served")
	flags.StringVar(&o.gateway, "gateway", defaults.gateway, "`ADDRESS` of the gateway, loopback only; port 0: any free port")
}

func (p *program) sandbox(ctx context.Context, o sandboxOptions) error {
	s, err := openSandbox(o)
	if err != nil {
		return err
	}
	defer s.close()
	var summary strings.Builder
	if o.envOut != "" {
		if err := s.writeFiles(o.envOut); err != nil {
			return newUsageError(fmt.Errorf("--env-out: %w", err), "choose a file that can be written")
		}
		fmt.Fprintf(&summary, "settings   %s\n", o.envOut)
	}
	fmt.Fprintf(&summary, "gateway    %s\ninventory  %s\n", s.url(), s.inventory())
	for _, address := range s.addresses() {
		fmt.Fprintf(&summary, "directory  %s as %s\n", address, s.directory().BindDN())
	}
	if _, err := io.WriteString(p.stdout, summary.String()); err != nil {
		return err
	}
	return s.serve(ctx)
}

// sandboxServers is a sandbox with open ports.
type sandboxServers struct {
	domain  *domaincontroller.Domain
	gateway *gatewayserver.Server
	options gatewayserver.Options
	web     net.Listener
	ports   []controllerPorts // of the domain's controllers
}

// directory returns the controller that the connector reads.
func (s *sandboxServers) directory() *domaincontroller.Server { return s.domain.Controllers()[0] }

// openSandbox opens the ports, which can fail, and then creates the servers.
func openSandbox(o sandboxOptions) (*sandboxServers, error) {
	if o.users < 0 || o.groups < 0 || o.maxCalls < 0 {
		return nil, newUsageError(errors.New("--users, --groups and --max-calls cannot be negative"), "")
	}
	if o.controllers < 1 || o.controllers > maxControllers {
		return nil, newUsageError(fmt.Errorf("--controllers %d is not allowed", o.controllers), fmt.Sprintf("use 1 to %d", maxControllers))
	}
	web, err := listenLoopback("--gateway", o.gateway)
	if err != nil {
		return nil, err
	}
	s := &sandboxServers{web: web}
	if s.ports, err = listenControllers(o); err != nil {
		web.Close()
		return nil, err
	}
	password := rand.Text()
	s.domain = domaincontroller.NewDomain(domaincontroller.Options{
		Users: o.users, Groups: o.groups, Seed: o.seed, Password: password, ReadsDeleted: true,
	}, s.hosts()...)
	s.options = gatewayserver.Options{
		CustomerUUID: uuid.NewString(), ConnectionUUID: uuid.NewString(), ProfileUUID: uuid.NewString(),
		Username: "sandbox", Password: rand.Text(), ClientID: "sandbox", ClientSecret: rand.Text(),
		MaxCalls: o.maxCalls, Intercept: o.intercept,
	}
	s.options.Connection = connectionTo(s.directory(), s.ports[0], s.options.ConnectionUUID, password)
	s.options.Profile = &gateway.Profile{
		ProfileUUID: s.options.ProfileUUID, Name: "Sandbox", BaseContext: s.directory().Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY",
	}
	if o.posture {
		s.options.Profile.Assets = "IDENTITIES_WITH_SECURITY_POSTURE"
	}
	s.gateway = gatewayserver.New(s.options)
	return s, nil
}

func (s *sandboxServers) url() string       { return "http://" + s.web.Addr().String() }
func (s *sandboxServers) inventory() string { return s.url() + "/inventory/users" }

// addresses returns the URLs of the directory.
func (s *sandboxServers) addresses() []string {
	var addresses []string
	for _, ports := range s.ports {
		if ports.plain != nil {
			addresses = append(addresses, "ldap://"+ports.plain.Addr().String())
		}
		if ports.secure != nil {
			addresses = append(addresses, "ldaps://"+ports.secure.Addr().String())
		}
	}
	return addresses
}

// hosts returns the host of each controller in the directory. They need no DNS if there are
// several, because the connector connects to each of them.
func (s *sandboxServers) hosts() []string {
	hosts := make([]string, len(s.ports))
	if len(hosts) > 1 {
		for n, ports := range s.ports {
			hosts[n] = ports.host()
		}
	}
	return hosts
}

// close closes the ports. serve closes them, too.
func (s *sandboxServers) close() {
	s.web.Close()
	closePorts(s.ports)
}

// serve serves both until ctx ends.
func (s *sandboxServers) serve(ctx context.Context) error {
	server := &http.Server{Handler: webserver.CheckHost(loopback.Contains, refuseHost, inventory.Handler(s.gateway)), ReadHeaderTimeout: 10 * time.Second}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return s.serveControllers(ctx) })
	both.Go(func() error {
		if err := server.Serve(s.web); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", s.web.Addr(), err)
		}
		return nil
	})
	<-ctx.Done()
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 300*time.Millisecond)
	defer cancel()
	err := server.Shutdown(shutdown)
	if err != nil {
		err = server.Close() // drops active connections
	}
	return cmp.Or(both.Wait(), err)
}

// refuseHost responds to a request for a name that is not loopback.
func refuseHost(w http.ResponseWriter, host string) {
	webserver.Misdirected(w, fmt.Sprintf("unknown host name %.100q\nremedy: use 127.0.0.1", host))
}

// writeFiles writes the env file of the command sandbox, and the certificate of the directory beside it.
func (s *sandboxServers) writeFiles(path string) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	lines := []string{"service.cron-expression=*/10 * * * *", "service.state-dir=" + absolute + ".state"}
	if s.options.Connection != nil {
		certificate := absolute + ".pem"
		if err := replaceFile(certificate, s.options.Connection.Authentication.Certificate); err != nil {
			return err
		}
		lines = append(lines, s.directorySettings(certificate)...)
	}
	return s.writeEnv(path, lines...)
}

// directorySettings returns commented settings with the values of the connection and the profile, so
// that an operator can try others.
func (s *sandboxServers) directorySettings(certificate string) []string {
	connection, profile := s.options.Connection.Authentication, s.options.Profile
	return []string{
		"# To try other settings of the directory, such as a wrong password or base, remove each",
		"# leading # below, and change the values. They replace the connection and the profile.",
		"#ldap.host=" + connection.Host,
		"#ldap.port=" + strconv.Itoa(connection.Port),
		"#ldap.protocol=" + connection.Type,
		"#ldap.certificate=" + certificate,
		"#ldap.bindDn=" + connection.BindDN,
		"#ldap.password=" + connection.Password,
		"#profile.baseContext=" + profile.BaseContext,
		"#profile.searchScope=" + profile.SearchScope,
		"#profile.assets=" + profile.Assets,
	}
}

// writeEnv writes an env file for a connector of the sandbox, with additional lines.
func (s *sandboxServers) writeEnv(path string, additional ...string) error {
	o := s.options
	lines := append([]string{
		"# Generated by adconnector, valid until its sandbox ends.",
		"connector.api.url=" + s.url(),
		"qualys.customerUuid=" + o.CustomerUUID,
		"qualys.connectionUuid=" + o.ConnectionUUID,
		"qualys.profileUuid=" + o.ProfileUUID,
		"authentication.type=BASIC",
		"qualys.user.username=" + o.Username,
		"qualys.user.password=" + o.Password,
	}, additional...)
	if len(s.ports) > 1 {
		lines = append(lines, "sync.last-logon="+string(syncrun.LastLogonAllControllers))
	}
	return replaceFile(path, strings.Join(lines, "\n")+"\n")
}

var errNotRegular = errors.New("not a regular file")

// replaceFile writes a file that only its owner can read. It replaces an existing regular
// file, whose mode it does not keep, and refuses symbolic links and devices.
func replaceFile(path, content string) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %s: %w", path, errNotRegular)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".adconnector-*") // mode 0600
	if err == nil {
		_, err = temporary.WriteString(content)
		if err = errors.Join(err, temporary.Close()); err == nil {
			err = os.Rename(temporary.Name(), path)
		}
		if err != nil {
			_ = os.Remove(temporary.Name())
		}
	}
	if pathError, is := errors.AsType[*os.PathError](err); is {
		err = pathError.Err // without the temporary name
	}
	if linkError, is := errors.AsType[*os.LinkError](err); is {
		err = linkError.Err
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// listenLoopback listens on an address, which must be a loopback address because the sandbox
// has no protection.
func listenLoopback(flag, address string) (net.Listener, error) {
	if err := checkLoopback(flag, address); err != nil {
		return nil, err
	}
	listener, err := openPort(address)
	if err != nil {
		return nil, listenError(flag, address, err)
	}
	return listener, nil
}

// checkLoopback returns an error unless an address is a loopback address with a port.
func checkLoopback(flag, address string) error {
	host, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return newUsageError(fmt.Errorf("%s %s is not an address", flag, address), "use host:port")
	}
	if !loopback.Contains(host) {
		return newUsageError(fmt.Errorf("%s %s: the sandbox listens on loopback only", flag, address), "use an address such as 127.0.0.1:"+port)
	}
	return nil
}

func openPort(address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", loopback.Listen(address))
}

// listenError returns the error of openPort for the user.
func listenError(flag, address string, err error) error {
	host, port, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return newUsageError(fmt.Errorf("%s %s: the port is in use, perhaps by another sandbox", flag, address), "stop the other process, or choose another port")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return newUsageError(fmt.Errorf("%s %s: %w", flag, address, err), "add the address to the loopback interface (macOS: sudo ifconfig lo0 alias "+host+"), or choose another one")
	case errors.Is(err, errNoNextAddress):
		return newUsageError(fmt.Errorf("%s %s: %w", flag, address, err), "use an address such as 127.0.0.1:"+port)
	}
	return newUsageError(fmt.Errorf("%s %s: %w", flag, address, err), "choose another address")
}

// freeAddress returns an address on which another listener can be opened.
func freeAddress(flag, address string) (string, error) {
	listener, err := listenLoopback(flag, address)
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
