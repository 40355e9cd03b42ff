package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
)

// sandboxOptions are the flags of the command.
type sandboxOptions struct {
	users, groups        int
	seed                 uint64
	ldap, ldaps, gateway string
	envOut               string
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
--env-out writes the settings with which the connector runs against the two, their
passwords made for this run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sandbox(cmd.Context(), o) },
	}
	flags := command.Flags()
	flags.IntVar(&o.users, "users", 1000, "users in the directory")
	flags.IntVar(&o.groups, "groups", 100, "groups in the directory")
	flags.Uint64Var(&o.seed, "seed", 1, "the same seed makes the same directory")
	flags.StringVar(&o.ldap, "ldap", "127.0.0.1:10389", "address for LDAP and StartTLS, loopback only; empty: none")
	flags.StringVar(&o.ldaps, "ldaps", "127.0.0.1:10636", "address for LDAPS, loopback only; empty: none")
	flags.StringVar(&o.gateway, "gateway", "127.0.0.1:18080", "address of the gateway, loopback only")
	flags.StringVar(&o.envOut, "env-out", "", "write an env file for the connector here")
	return command
}

func (p *program) sandbox(ctx context.Context, o sandboxOptions) error {
	if o.users < 0 || o.groups < 0 {
		return misused(errors.New("--users and --groups cannot be negative"))
	}
	var listeners [3]net.Listener
	for i, flag := range []struct{ name, address string }{{"--gateway", o.gateway}, {"--ldap", o.ldap}, {"--ldaps", o.ldaps}} {
		if i > 0 && flag.address == "" {
			continue
		}
		listener, err := listenLoopback(flag.name, flag.address)
		if err != nil {
			return err
		}
		defer listener.Close()
		listeners[i] = listener
	}
	web, plain, secure := listeners[0], listeners[1], listeners[2]

	password := rand.Text()
	directory := sandbox.NewDirectory(sandbox.DirectoryOptions{
		Users: o.users, Groups: o.groups, Seed: o.seed, Password: password, ReadsDeleted: true,
	})
	options := sandbox.GatewayOptions{
		CustomerUUID: uuid.NewString(), ConnectionUUID: uuid.NewString(), ProfileUUID: uuid.NewString(),
		Username: "sandbox", Password: rand.Text(), ClientID: "sandbox", ClientSecret: rand.Text(),
	}
	options.Connection = connectionTo(directory, plain, secure, options.ConnectionUUID, password)
	options.Profile = &gateway.Profile{
		ProfileUUID: options.ProfileUUID, Name: "Sandbox", BaseContext: directory.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY",
	}
	if o.envOut != "" {
		if err := writeEnv(o.envOut, web.Addr(), options); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "settings   %s\n", o.envOut)
	}
	fmt.Fprintf(p.stdout, "gateway    http://%s\ninventory  http://%s/inventory/users\n", web.Addr(), web.Addr())
	for _, way := range []struct {
		scheme   string
		listener net.Listener
	}{{"ldap", plain}, {"ldaps", secure}} {
		if way.listener != nil {
			fmt.Fprintf(p.stdout, "directory  %s://%s as %s\n", way.scheme, way.listener.Addr(), directory.BindDN())
		}
	}
	return serveSandbox(ctx, directory, sandbox.NewGateway(options), web, plain, secure)
}

// serveSandbox serves both until ctx ends.
func serveSandbox(ctx context.Context, directory *sandbox.Directory, handler http.Handler, web, plain, secure net.Listener) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	both, ctx := errgroup.WithContext(ctx)
	if plain != nil || secure != nil {
		both.Go(func() error { return directory.Serve(ctx, plain, secure) })
	}
	both.Go(func() error {
		if err := server.Serve(web); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", web.Addr(), err)
		}
		return nil
	})
	both.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			return server.Close() // who still talks to a sandbox is cut off
		}
		return nil
	})
	return both.Wait()
}

// connectionTo is the connection as somebody at the console would enter it, the
// protected one where there are two; nil where there is no directory to reach.
func connectionTo(directory *sandbox.Directory, plain, secure net.Listener, id, password string) *sandbox.Connection {
	listener, protocol := secure, "LDAPS"
	if listener == nil {
		listener, protocol = plain, "STARTTLS"
	}
	if listener == nil {
		return nil
	}
	address := listener.Addr().(*net.TCPAddr)
	return &sandbox.Connection{ConnectionUUID: id, Name: "Sandbox", Authentication: sandbox.Authentication{
		Type: protocol, Host: address.IP.String(), Port: address.Port, BindDN: directory.BindDN(), Password: password,
		Certificate: string(directory.CertificatePEM()),
	}}
}

// listenLoopback refuses other addresses: nothing here is protected.
func listenLoopback(flag, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return nil, misused(fmt.Errorf("%s %s: use host:port", flag, address))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, misused(fmt.Errorf("%s %s: the sandbox listens on loopback only, for example 127.0.0.1:%s", flag, address, port))
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, misused(fmt.Errorf("%s %s: %w: choose another port", flag, address, err))
	}
	return listener, nil
}

func writeEnv(path string, address net.Addr, o sandbox.GatewayOptions) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return misused(fmt.Errorf("--env-out: %w", err))
	}
	lines := []string{
		"# Made by adconnector sandbox: good until it ends.",
		"connector.api.url=http://" + address.String(),
		"qualys.customerUuid=" + o.CustomerUUID,
		"qualys.connectionUuid=" + o.ConnectionUUID,
		"qualys.profileUuid=" + o.ProfileUUID,
		"authentication.type=BASIC",
		"qualys.user.username=" + o.Username,
		"qualys.user.password=" + o.Password,
		"service.cron-expression=*/10 * * * *",
		"service.state-dir=" + absolute + ".state",
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return misused(fmt.Errorf("--env-out: %w: choose a file that can be written", err))
	}
	return nil
}
