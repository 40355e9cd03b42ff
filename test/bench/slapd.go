package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// slapd is a running server with a dataset.
type slapd struct {
	host, port string
	dir        string
	password   string // of rootDN; passwordFile has it, too
	process    *exec.Cmd
	log        *os.File
	ended      chan error
}

const (
	rootDN       = "CN=reader," + suffix
	schemaDir    = "/etc/ldap/schema"
	moduleDir    = "/usr/lib/ldap"
	maxDatabase  = 64 << 30 // bytes of address space, not of disk
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// benchSchema allows the attributes that Active Directory's user and group inherit from other
// classes.
const benchSchema = `objectclass ( 1.3.6.1.4.1.4203.666.100.1 NAME '` + auxiliaryClass + `' SUP top AUXILIARY
	MAY ( sAMAccountName $ sAMAccountType $ objectSid $ co $ c ) )
`

// schemas are loaded in this order. The changes make slapd respond like a domain controller.
var schemas = []struct {
	name    string
	changes []string // pairs of the original text and its replacement
}{
	{"core.schema", []string{
		// slapd returns an attribute under its first name, whichever the client requests.
		"'street' 'streetAddress'", "'streetAddress' 'street'",
		// An extended DN is not valid in slapd's DN syntax.
		"( 2.5.4.31 NAME 'member'\n\tDESC 'RFC2256: member of a group'\n\tSUP distinguishedName )",
		"( 2.5.4.31 NAME 'member' EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )",
	}},
	{"cosine.schema", nil},
	{"nis.schema", nil},
	{"inetorgperson.schema", nil},
	// Without an equality rule, no filter matches.
	{"msuser.schema", []string{"NAME 'sAMAccountType'\n", "NAME 'sAMAccountType'\n\tEQUALITY integerMatch\n"}},
}

// startSlapd loads the dataset into a new database in dir and serves it.
func startSlapd(ctx context.Context, dir string, d dataset) (*slapd, error) {
	s := &slapd{dir: dir, password: rand.Text(), ended: make(chan error, 1)}
	config, err := s.configure()
	if err == nil {
		err = load(ctx, config, d)
	}
	if err == nil {
		err = s.serve(ctx, config)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *slapd) passwordFile() string { return filepath.Join(s.dir, "password") }

// configure writes the configuration files and returns the path of slapd.conf.
func (s *slapd) configure() (string, error) {
	database := filepath.Join(s.dir, "database")
	if err := os.MkdirAll(database, 0o700); err != nil {
		return "", err
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, schema := range schemas {
		text, err := os.ReadFile(filepath.Join(schemaDir, schema.name))
		if err != nil {
			return "", fmt.Errorf("read slapd schemas: %w: install the Debian package slapd", err)
		}
		changed := string(text)
		for i := 0; i < len(schema.changes); i += 2 {
			before, after, found := strings.Cut(changed, schema.changes[i])
			if !found {
				return "", fmt.Errorf("%s does not contain %q: use the schemas of OpenLDAP 2.5 or 2.6", schema.name, schema.changes[i])
			}
			changed = before + schema.changes[i+1] + after
		}
		if err := s.write(schema.name, changed); err != nil {
			return "", err
		}
		add("include %s", filepath.Join(s.dir, schema.name))
	}
	if err := s.write("bench.schema", benchSchema); err != nil {
		return "", err
	}
	add("include %s", filepath.Join(s.dir, "bench.schema"))
	if _, err := os.Stat(filepath.Join(moduleDir, "back_mdb.so")); err == nil {
		add("modulepath %s\nmoduleload back_mdb", moduleDir)
	}
	add("pidfile %s\nargsfile %s", filepath.Join(s.dir, "pid"), filepath.Join(s.dir, "args"))
	add("sizelimit unlimited\ntool-threads 2")
	add("database mdb\nsuffix %q\nrootdn %q\nrootpw %s", suffix, rootDN, s.password)
	add("directory %s\nmaxsize %d\ndbnosync", database, maxDatabase)
	add("index objectClass,sAMAccountType eq\nindex primaryGroupID pres") // the same as on a domain controller
	if err := s.write("password", s.password); err != nil {
		return "", err
	}
	const config = "slapd.conf"
	return filepath.Join(s.dir, config), s.write(config, strings.Join(lines, "\n")+"\n")
}

func (s *slapd) write(name, text string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600)
}

// load streams the dataset into the database.
func load(ctx context.Context, config string, d dataset) error {
	cmd := exec.CommandContext(ctx, "slapadd", "-q", "-f", config)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	entries, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	writeErr := d.writeLDIF(bufio.NewWriterSize(entries, 1<<20))
	closeErr := entries.Close()
	if err := cmd.Wait(); err != nil { // the cause of a write error
		return fmt.Errorf("slapadd: %w: %s", err, tail(output.Bytes()))
	}
	return errors.Join(writeErr, closeErr)
}

func (s *slapd) serve(ctx context.Context, config string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	if s.host, s.port, err = net.SplitHostPort(address); err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return err
	}
	// -d keeps slapd in the foreground.
	process := exec.Command("slapd", "-d", "0", "-f", config, "-h", s.url())
	process.Stdout, process.Stderr = s.log, s.log
	if err := process.Start(); err != nil {
		return err
	}
	s.process = process
	go func() { s.ended <- process.Wait() }()
	return s.awaitReady(ctx)
}

func (s *slapd) url() string { return "ldap://" + net.JoinHostPort(s.host, s.port) }

// awaitReady waits until the server accepts connections.
func (s *slapd) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort(s.host, s.port))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case err := <-s.ended:
			s.process = nil
			text, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("slapd ended: %w: %s", err, tail(text))
		case <-ctx.Done():
			return fmt.Errorf("slapd does not listen on port %s: %w", s.port, ctx.Err())
		}
	}
}

// stop ends the server and removes its files.
func (s *slapd) stop() error {
	var errs []error
	if s.process != nil {
		errs = append(errs, s.process.Process.Signal(syscall.SIGTERM))
		select {
		case <-s.ended:
		case <-time.After(stopTimeout):
			errs = append(errs, s.process.Process.Kill())
			<-s.ended
		}
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
