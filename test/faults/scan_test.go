package faults

import (
	"fmt"
	"sync"
	"testing"

	"adconnector/test/testlog"
)

// secretScan searches every output and every error of the suite for every secret in use:
// passwords, client secrets and tokens, in all forms in which they are sent.
var secretScan scanner

type scanner struct {
	mu      sync.Mutex
	outputs int
	bytes   int
	found   int
}

// check fails the test when text contains a secret. The failure message does not repeat it.
func (s *scanner) check(t testing.TB, source, text string) {
	t.Helper()
	before, found := testlog.FindSecret(text)
	if found {
		t.Errorf("%s contains a secret, after %q", source, before)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs++
	s.bytes += len(text)
	if found {
		s.found++
	}
}

func (s *scanner) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("secrets: %d outputs and errors, %d bytes, searched for %d forms: %d found\n", s.outputs, s.bytes, testlog.SecretCount(), s.found)
}
