package directory

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"adconnector/test/fakeldap"
)

// tape is a connection that plays bytes, some at a time, and then ends.
type tape struct {
	net.Conn
	data io.Reader
	some int
}

func (c *tape) Read(p []byte) (int, error)  { return c.data.Read(p[:min(len(p), c.some)]) }
func (c *tape) Write(p []byte) (int, error) { return len(p), nil }
func (c *tape) SetDeadline(time.Time) error { return nil }

// play reads a tape to its end as go-ldap would, while another goroutine takes the
// entries of search 1. It returns the bytes that were passed on and the entries.
func play(data []byte, some int) (w *wire, passed, entries []byte, err error) {
	w = newWire(&tape{data: bytes.NewReader(data), some: some}, time.Minute, nil)
	s := newStream(1)
	w.carry(s)
	_, _ = w.Write([]byte("\x30\x05\x02\x01\x01\x63\x00"))
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_ = s.drain(func(message []byte) error {
			entries = append(entries, message...)
			return nil
		})
	}()
	p := make([]byte, 100)
	for err == nil {
		var n int
		n, err = w.Read(p)
		passed = append(passed, p[:n]...)
	}
	close(s.ended)
	<-drained
	return w, passed, entries, err
}

func TestWireSortsMessages(t *testing.T) {
	t.Parallel()
	a, b := fakeldap.NewEntry("CN=a", []string{"cn", "a"}).Message(1), fakeldap.NewEntry("CN=b").Message(1)
	foreign, end := fakeldap.NewEntry("CN=c").Message(2), fakeldap.Done(1, 0, fakeldap.Paging("cookie"))
	reference := []byte("\x30\x0a\x02\x01\x01\x73\x05\x04\x03x:/")
	data := bytes.Join([][]byte{a, foreign, reference, b, end}, nil)
	for _, some := range []int{1, 2, 3, 7, 64, len(data)} {
		_, passed, entries, err := play(data, some)
		if err != io.EOF || !bytes.Equal(passed, append(bytes.Clone(foreign), end...)) || !bytes.Equal(entries, append(bytes.Clone(a), b...)) {
			t.Errorf("%d bytes at a time: passed %q, entries %q, %v", some, passed, entries, err)
		}
	}
	if _, _, _, err := play(data[:len(data)-1], 10); err != io.ErrUnexpectedEOF {
		t.Errorf("cut: %v", err)
	}
}

// No stream makes the wire panic, hang, pass on more than came, or keep more than
// twice what came.
func FuzzWire(f *testing.F) {
	message, _ := usual()
	entry, end := fakeldap.NewEntry("CN=a", []string{"cn", "a"}).Message(1), fakeldap.Done(1, 0, fakeldap.Paging("cookie"))
	f.Add(bytes.Join([][]byte{entry, entry, end}, nil), uint8(5))
	f.Add(append(message, end...), uint8(255))
	f.Add([]byte("\x30\x84\x40\x00\x00\x00\x02"), uint8(1))
	f.Add([]byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036"), uint8(9))
	f.Add(long(tagSequence, append([]byte{tagInteger, 4, 0xff, 0xff, 0xff, 0xff}, end...)), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, some uint8) {
		w, passed, entries, err := play(data, int(some)+1)
		if err == nil {
			t.Error("no error")
		}
		if len(passed)+len(entries) > len(data) {
			t.Errorf("%d bytes passed and %d in entries, of %d", len(passed), len(entries), len(data))
		}
		if cap(w.in) > max(readSize, 2*len(data)) {
			t.Errorf("buffer of %d bytes for %d", cap(w.in), len(data))
		}
		d := newDecoder([]string{"cn"})
		for rest := entries; len(rest) > 0; {
			size, known, err := messageSize(rest)
			if err != nil || !known {
				t.Fatalf("entries are not messages: %v", err)
			}
			_, _ = d.decode(rest[:size])
			rest = rest[size:]
		}
	})
}
