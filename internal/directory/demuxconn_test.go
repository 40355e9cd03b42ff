package directory

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"adconnector/test/fakeldap"
)

// scriptedConn is a connection that returns data, at most readSize bytes a read.
type scriptedConn struct {
	net.Conn
	data     io.Reader
	readSize int
}

func (c *scriptedConn) Read(p []byte) (int, error)  { return c.data.Read(p[:min(len(p), c.readSize)]) }
func (c *scriptedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *scriptedConn) SetDeadline(time.Time) error { return nil }

// demux reads data to its end as go-ldap would, while another goroutine consumes the
// entries of message ID 1. It returns the forwarded bytes and the entries.
func demux(data []byte, readSize int) (w *demuxConn, forwarded, entries []byte, err error) {
	w = newDemuxConn(&scriptedConn{data: bytes.NewReader(data), readSize: readSize}, time.Minute)
	s := newEntryStream(1)
	w.setStream(s)
	_, _ = w.Write([]byte("\x30\x05\x02\x01\x01\x63\x00"))
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_ = s.consume(func(message []byte) error {
			entries = append(entries, message...)
			return nil
		})
	}()
	p := make([]byte, 100)
	for err == nil {
		var n int
		n, err = w.Read(p)
		forwarded = append(forwarded, p[:n]...)
	}
	close(s.producerDone)
	<-drained
	return w, forwarded, entries, err
}

func TestDemuxConnSortsMessages(t *testing.T) {
	t.Parallel()
	a, b := fakeldap.NewEntry("CN=a", []string{"cn", "a"}).Message(1), fakeldap.NewEntry("CN=b").Message(1)
	foreign, end := fakeldap.NewEntry("CN=c").Message(2), fakeldap.Done(1, 0, fakeldap.Paging("cookie"))
	reference := []byte("\x30\x0a\x02\x01\x01\x73\x05\x04\x03x:/")
	data := bytes.Join([][]byte{a, foreign, reference, b, end}, nil)
	for _, readSize := range []int{1, 2, 3, 7, 64, len(data)} {
		_, forwarded, entries, err := demux(data, readSize)
		if !errors.Is(err, io.EOF) || !bytes.Equal(forwarded, append(bytes.Clone(foreign), end...)) || !bytes.Equal(entries, append(bytes.Clone(a), b...)) {
			t.Errorf("%d bytes a read: forwarded %q, entries %q, %v", readSize, forwarded, entries, err)
		}
	}
	if _, _, _, err := demux(data[:len(data)-1], 10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %v", err)
	}
}

// FuzzDemuxConn checks that no input causes a panic, a hang, more output than input, or a
// buffer of more than four times the input.
func FuzzDemuxConn(f *testing.F) {
	message, _ := typicalEntry()
	entry, end := fakeldap.NewEntry("CN=a", []string{"cn", "a"}).Message(1), fakeldap.Done(1, 0, fakeldap.Paging("cookie"))
	f.Add(bytes.Join([][]byte{entry, entry, end}, nil), uint8(5))
	f.Add(append(message, end...), uint8(255))
	f.Add([]byte("\x30\x84\x40\x00\x00\x00\x02"), uint8(1))
	f.Add([]byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036"), uint8(9))
	f.Add(longElement(tagSequence, append([]byte{tagInteger, 4, 0xff, 0xff, 0xff, 0xff}, end...)), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, readLimit uint8) {
		w, forwarded, entries, err := demux(data, int(readLimit)+1)
		if err == nil {
			t.Error("no error")
		}
		if len(forwarded)+len(entries) > len(data) {
			t.Errorf("%d bytes forwarded and %d bytes of entries, from %d bytes", len(forwarded), len(entries), len(data))
		}
		if cap(w.buf) > max(readSize, 4*len(data)) {
			t.Errorf("buffer of %d bytes for %d bytes of input", cap(w.buf), len(data))
		}
		d := newDecoder([]string{"cn"})
		for rest := entries; len(rest) > 0; {
			size, known, err := messageSize(rest)
			if err != nil || !known {
				t.Fatalf("entries are no complete messages: %v", err)
			}
			_, _ = d.decode(rest[:size])
			rest = rest[size:]
		}
	})
}

// TestGrownSize checks that a buffer does not grow to an announced size before a quarter of it has
// arrived: a server could announce large messages on many connections.
func TestGrownSize(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ full, need, want int }{
		{0, 100, readSize},
		{readSize, 0, 2 * readSize},
		{readSize, maxEntryMessage, 2 * readSize},
		{readSize, 4*readSize + 1, 2 * readSize},
		{readSize, 4 * readSize, 4 * readSize},
		{8 << 20, maxEntryMessage, maxEntryMessage},
	} {
		if size := grownSize(test.full, test.need); size != test.want {
			t.Errorf("full %d, need %d: %d, want %d", test.full, test.need, size, test.want)
		}
	}
}
