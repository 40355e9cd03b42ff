// Command bench measures how fast the connector reads a directory and fills a
// gateway, beside ldapsearch and beside the way most Go programs do it, and prints
// one table with ratios.
//
// It makes all that it needs: a slapd with generated entries, a gateway and the
// connector's binary, on loopback and in a temporary directory, both gone at the
// end. The contenders take turns within every round, so that whatever else the
// machine does hits them alike; figures of different runs are not for comparing.
//
// It guarantees that every contender has read every entry, and that the gateway
// holds what was sent. It ends with an error when one has not; a goal that is not
// reached is no error.
//
// BENCH_ROUNDS sets the number of rounds (5), BENCH_LARGE=1 adds 1,000,000 users.
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

// The first argument of the processes that the bench makes of itself.
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
		return errors.New("it takes no arguments: set BENCH_ROUNDS and BENCH_LARGE in the environment")
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
	rounds, err := roundsWanted()
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
			return fmt.Errorf("%s users: %w", grouped(d.users), err)
		}
		results = append(results, measured...)
	}
	printTable(os.Stdout, results, rounds)
	printGoals(os.Stdout, results)
	return nil
}

func roundsWanted() (int, error) {
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

// Sizes that the goals are set for.
const (
	usualUsers = 100_000
	largeUsers = 1_000_000
)

func sizes() []dataset {
	list := []dataset{{10_000, 1_000}, {usualUsers, 10_000}}
	if os.Getenv("BENCH_LARGE") == "1" {
		list = append(list, dataset{largeUsers, 100_000})
	}
	return list
}

// build makes the binary as it is shipped.
func build(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "adconnector/cmd/adconnector")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the connector: %w: run the bench inside the module\n%s", err, output)
	}
	return nil
}

// benchSize measures all contenders on a directory of one size.
func benchSize(ctx context.Context, dir, binary string, d dataset, rounds int) (_ []result, err error) {
	progress("%s users, %s groups: loading slapd", grouped(d.users), grouped(d.groups))
	server, err := startSlapd(ctx, filepath.Join(dir, "slapd"), d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()

	s, err := newStage(filepath.Join(dir, "stage"), binary, d, server)
	if err != nil {
		return nil, err
	}
	if err := s.countEntries(ctx); err != nil { // which warms the server up as well
		return nil, err
	}
	list := contenders(d)
	results := make([]result, len(list))
	for i, c := range list {
		results[i] = result{dataset: d, contender: c.name}
	}
	for round := range rounds {
		if err := s.round(ctx, list, results); err != nil {
			return nil, err
		}
		progress("%s users: round %d of %d: %s s", grouped(d.users), round+1, rounds, lastWalls(results))
	}
	return results, nil
}

// round lets each contender run once.
func (s *stage) round(ctx context.Context, list []contender, results []result) (err error) {
	if err := s.reset(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.gateway.stop()) }()
	for i, c := range list {
		m, err := c.run(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		results[i].rounds = append(results[i].rounds, m)
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
