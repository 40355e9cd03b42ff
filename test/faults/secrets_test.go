package faults

import (
	"fmt"
	"sync"
	"testing"

	"adconnector/test/testlog"
)

// searched is where every output and every error of the suite is searched for every
// secret in use: passwords, client secrets, tokens, in all the forms in which they are sent.
var searched search

type search struct {
	mu      sync.Mutex
	outputs int
	bytes   int
	found   int
}

// in fails the test when text shows a secret, which is not shown again.
func (s *search) in(t testing.TB, where, text string) {
	t.Helper()
	before, found := testlog.FindSecret(text)
	if found {
		t.Errorf("%s shows a secret, after %q", where, before)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs++
	s.bytes += len(text)
	if found {
		s.found++
	}
}

func (s *search) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("secrets: %d outputs and errors, %d bytes, searched for %d texts: %d found\n", s.outputs, s.bytes, testlog.SecretCount(), s.found)
}
