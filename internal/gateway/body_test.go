package gateway

import (
	"errors"
	"io"
	"net/http"
	"testing"
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

// endlessBody is the body of a response without end. It counts the bytes that are read, and fails
// when there are many more than any limit.
type endlessBody struct{ read int64 }

var errNotStopped = errors.New("reading has not stopped")

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.read > 4*maxAssetsBytes {
		return 0, errNotStopped
	}
	b.read += int64(len(p))
	return len(p), nil
}

func (b *endlessBody) Close() error { return nil }

// The reading of a body stops at the limit, so that a response takes no more memory.
func TestReadBodyStopsAtLimit(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, test := range []struct {
		status     int
		length     int64
		size, read int64 // maximum of read
		err        error
	}{
		{http.StatusOK, -1, 0, limit + 1, errResponseTooLarge},
		{http.StatusOK, limit + 1, 0, 0, errResponseTooLarge},
		{http.StatusBadRequest, -1, maxErrorBytes, maxErrorBytes + 1, nil},
		{http.StatusInternalServerError, 1 << 40, maxErrorBytes, maxErrorBytes + 1, nil},
	} {
		endless := &endlessBody{}
		body, err := readBody(&http.Response{StatusCode: test.status, ContentLength: test.length, Body: endless}, limit)
		if !errors.Is(err, test.err) || int64(len(body)) != test.size || endless.read > test.read {
			t.Errorf("status %d: %d of %d bytes, error %v", test.status, len(body), endless.read, err)
		}
	}
}
