package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"adconnector/internal/secret"
)

// A body consists of its parts, can be read several times, and is not read after detach.
func TestRequestBody(t *testing.T) {
	t.Parallel()
	parts := [][]byte{[]byte("head,"), nil, []byte("assets"), []byte(",tail")}
	body := newRequestBody(parts...)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://gateway.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	body.setTo(request)
	const want = "head,assets,tail"
	again, err := request.GetBody()
	if err != nil || request.ContentLength != int64(len(want)) {
		t.Fatalf("length %d, error %v", request.ContentLength, err)
	}
	half := make([]byte, 7)
	if _, err := io.ReadFull(again, half); err != nil || string(half) != want[:7] {
		t.Errorf("beginning %q, error %v", half, err)
	}
	if all, err := io.ReadAll(request.Body); err != nil || string(all) != want {
		t.Errorf("body %q, error %v", all, err)
	}
	body.detach()
	copy(parts[2], "XXXXXX")
	if n, err := again.Read(half); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read %q after detach, error %v", half[:n], err)
	}
	if n, err := request.Body.Read(half); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %q after the end, error %v", half[:n], err)
	}
	empty := newRequestBody()
	if empty.setTo(request); request.Body != http.NoBody || request.ContentLength != 0 {
		t.Errorf("empty body %v with length %d", request.Body, request.ContentLength)
	}
}

// An error whose body is cut off within a token contains no part of the token.
func TestRedact(t *testing.T) {
	t.Parallel()
	const token = "eyJh.bcd"
	cut := func(text string) string { return strings.Repeat(" ", maxErrorBytes-len(text)) + text }
	for body, want := range map[string]string{
		"a eyJh.bcd z":      "a [redacted] z",
		"ends with eyJ":     "ends with eyJ",
		cut("a eyJh.bc"):    "a ",
		cut("a eyJh.bcd"):   "a [redacted]",
		cut("a eyJh.bcdey"): "a [redacted]",
		cut("no token"):     "no token",
	} {
		if got := redact([]byte(body), secret.New(token)); string(bytes.TrimLeft(got, " ")) != want {
			t.Errorf("%q: %q, want %q", strings.TrimSpace(body), bytes.TrimSpace(got), want)
		}
	}
}
