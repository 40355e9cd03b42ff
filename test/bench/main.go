// Command bench measures the time and memory of the connector for reading a directory and
// sending it to a gateway. It compares them with ldapsearch and with a typical Go program, and
// prints a table.
//
// It needs Go, slapd and ldap-utils, and installs the latter two as root. It starts a slapd
// with generated entries and a gateway on loopback, and removes all files at the end. Run it
// with `make bench`.
//
// Each round runs every workload once, so that other load of the machine affects them equally.
// Do not compare figures of different runs.
//
// The command fails unless every workload reads every entry and the gateway holds all objects.
// A missed goal is not an error.
//
// BENCH_ROUNDS sets the number of rounds (default 5). BENCH_LARGE=1 adds 1,000,000 users.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"adconnector/test/debian"
)

// The first argument of the child processes, which run the same executable.
const (
	gatewayProcess   = "gateway"
	collectorProcess = "collector"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == gatewayProcess:
		return serveGateway(args[1])
	case len(args) == 2 && args[0] == collectorProcess:
		return collect(args[1])
	case len(args) > 0:
		return errors.New("unexpected arguments: set BENCH_ROUNDS and BENCH_LARGE in the environment")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := bench(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

func bench(ctx context.Context) (err error) {
	rounds, err := roundsFromEnv()
	if err != nil {
		return err
	}
	if err := debian.Install([]string{"slapd", "slapadd", "ldapsearch"}, "slapd", "ldap-utils"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "adconnector-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	binary := filepath.Join(dir, "adconnector")
	if err := build(ctx, binary); err != nil {
		return err
	}
	var results []result
	for _, d := range sizes() {
		measured, err := benchSize(ctx, dir, binary, d, rounds)
		if err != nil {
			return fmt.Errorf("%s users: %w", withCommas(d.users), err)
		}
		results = append(results, measured...)
	}
	printTable(os.Stdout, results, rounds)
	printGoals(os.Stdout, results)
	return nil
}

func roundsFromEnv() (int, error) {
	text := os.Getenv("BENCH_ROUNDS")
	if text == "" {
		return 5, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, fmt.Errorf("BENCH_ROUNDS=%s: use a number from 1 to 1000", text)
	}
	return n, nil
}

// The sizes with goals.
const (
	mediumUsers = 100_000
	largeUsers  = 1_000_000
)

func sizes() []dataset {
	list := []dataset{{10_000, 1_000}, {mediumUsers, 10_000}}
	if os.Getenv("BENCH_LARGE") == "1" {
		list = append(list, dataset{largeUsers, 100_000})
	}
	return list
}

// build builds the connector with the flags of a release.
func build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "adconnector/cmd/adconnector")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the connector: %w: run the bench inside the module\n%s", err, output)
	}
	return nil
}

// benchSize measures all workloads on a directory of one size.
func benchSize(ctx context.Context, dir, binary string, d dataset, rounds int) (_ []result, err error) {
	progress("%s users, %s groups: loading slapd", withCommas(d.users), withCommas(d.groups))
	server, err := startSlapd(ctx, filepath.Join(dir, "slapd"), d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()

	f, err := newFixture(filepath.Join(dir, "fixture"), binary, d, server)
	if err != nil {
		return nil, err
	}
	if err := f.countEntries(ctx); err != nil { // also fills the server's caches
		return nil, err
	}
	list := workloads(d)
	results := make([]result, len(list))
	for i, w := range list {
		results[i] = result{dataset: d, workload: w.name}
	}
	for round := range rounds {
		if err := f.round(ctx, list, results); err != nil {
			return nil, err
		}
		progress("%s users: round %d of %d: %s s", withCommas(d.users), round+1, rounds, lastWalls(results))
	}
	return results, nil
}

// round runs each workload once.
func (f *fixture) round(ctx context.Context, list []workload, results []result) (err error) {
	if err := f.reset(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.gateway.stop()) }()
	for i, w := range list {
		m, err := w.run(ctx, f)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		results[i].rounds = append(results[i].rounds, m)
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
