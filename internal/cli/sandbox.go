package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"adconnector/internal/sandbox"
)

func (p *program) sandboxCommand() *cobra.Command {
	var address, envOut string
	command := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve a gateway on loopback that keeps the contract, to try the connector against",
		Long: `Serves a gateway on loopback that keeps the contract, to try the connector against.

It is strict about requests and shows what it holds at /inventory/users and
/inventory/groups. --env-out writes the settings that reach it, with a password
made for this run; add the ldap.* keys of a directory, and run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.sandbox(cmd.Context(), address, envOut) },
	}
	flags := command.Flags()
	flags.StringVar(&address, "gateway", "127.0.0.1:18080", "address to listen on, loopback only")
	flags.StringVar(&envOut, "env-out", "", "write an env file for the connector here")
	return command
}

func (p *program) sandbox(ctx context.Context, address, envOut string) error {
	listener, err := listenLoopback(address)
	if err != nil {
		return err
	}
	defer listener.Close()
	o := sandbox.GatewayOptions{
		CustomerUUID: uuid.NewString(), ConnectionUUID: uuid.NewString(), ProfileUUID: uuid.NewString(),
		Username: "sandbox", Password: rand.Text(), ClientID: "sandbox", ClientSecret: rand.Text(),
	}
	if envOut != "" {
		if err := writeEnv(envOut, listener.Addr(), o); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "settings   %s\n", envOut)
	}
	fmt.Fprintf(p.stdout, "gateway    http://%s\ninventory  http://%s/inventory/users\n", listener.Addr(), listener.Addr())

	server := &http.Server{Handler: sandbox.NewGateway(o), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", address, err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		_ = server.Close() // who still talks to a sandbox is cut off
	}
	<-failed
	return nil
}

// listenLoopback refuses other addresses: nothing here is protected.
func listenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usage{fmt.Errorf("--gateway %s: %w: use host:port", address, err)}
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usage{errors.New("--gateway " + address + ": the sandbox listens on loopback only, for example 127.0.0.1:18080")}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usage{fmt.Errorf("--gateway %s: %w: choose another port", address, err)}
	}
	return listener, nil
}

func writeEnv(path string, address net.Addr, o sandbox.GatewayOptions) error {
	lines := []string{
		"# Made by adconnector sandbox: good until it ends. Add the ldap.* keys of a directory.",
		"connector.api.url=http://" + address.String(),
		"qualys.customerUuid=" + o.CustomerUUID,
		"qualys.connectionUuid=" + o.ConnectionUUID,
		"qualys.profileUuid=" + o.ProfileUUID,
		"authentication.type=BASIC",
		"qualys.user.username=" + o.Username,
		"qualys.user.password=" + o.Password,
		"service.cron-expression=*/10 * * * *",
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return usage{fmt.Errorf("--env-out: %w", err)}
	}
	return nil
}
