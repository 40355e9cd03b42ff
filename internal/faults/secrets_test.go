package faults

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// searched is where every output and every error of the suite is searched for every
// secret in use: passwords, client secrets, tokens, in all the forms in which they travel.
var searched search

type search struct {
	mu      sync.Mutex
	secrets []string
	outputs int
	bytes   int
	found   int
}

// keep makes text a secret that nothing may show.
func (s *search) keep(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, text)
	quoted := strconv.Quote(text)
	for _, form := range []string{quoted[1 : len(quoted)-1], url.QueryEscape(text), url.PathEscape(text), base64.StdEncoding.EncodeToString([]byte(text))} {
		if form != text {
			s.secrets = append(s.secrets, form)
		}
	}
	return text
}

// keepPair makes a name and a password secret as basic authentication sends them.
func (s *search) keepPair(name, password string) {
	s.keep(password)
	s.keep(base64.StdEncoding.EncodeToString([]byte(name + ":" + password)))
}

// in fails the test when text shows a secret, which is not shown again.
func (s *search) in(t testing.TB, where, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs++
	s.bytes += len(text)
	for _, secret := range s.secrets {
		if at := strings.Index(text, secret); at >= 0 {
			s.found++
			t.Errorf("%s shows a secret, after %q", where, text[max(0, at-60):at])
		}
	}
}

func (s *search) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("secrets: %d outputs and errors, %d bytes, searched for %d texts: %d found\n", s.outputs, s.bytes, len(s.secrets), s.found)
}
