package upload

import (
	"context"
	"sync"
	"sync/atomic"
)

// minBytes and batchesOfBytes bound the bytes of all batches that are filled, in flight or
// uncommitted, and of the buffers for later batches: minBytes, or as many batches of the largest
// size. A larger asset waits until no other bytes are taken.
const (
	minBytes       = 8 << 20
	batchesOfBytes = 2
)

// MaxBytes returns the bound of the bytes of an upload. batchBytes is Options.BatchBytes.
func MaxBytes(batchBytes int) int64 { return max(minBytes, batchesOfBytes*int64(batchBytes)) }

// byteBudget counts bytes against a bound. Only one caller at a time may wait in acquire.
type byteBudget struct {
	freed chan struct{} // holds a value if bytes became available since the last wait

	mu    sync.Mutex
	free  int64    // negative: a larger asset takes more than size
	spare [][]byte // buffers for reuse, which acquire drops if it needs their bytes

	size  int64
	usage *Usage
}

func newByteBudget(size int64, usage *Usage) *byteBudget {
	return &byteBudget{freed: make(chan struct{}, 1), free: size, size: size, usage: usage}
}

// Usage is how many bytes an upload holds, of MaxBytes or a larger asset. It is safe for concurrent use. A nil Usage counts
// nothing.
type Usage struct{ bytes atomic.Int64 }

// Bytes returns the bytes that the current upload holds; 0 without one.
func (u *Usage) Bytes() int64 { return u.bytes.Load() }

func (u *Usage) set(bytes int64) {
	if u != nil {
		u.bytes.Store(bytes)
	}
}

// tryAcquire takes n bytes if they are available. If n is more than the bound, all bytes must be.
func (b *byteBudget) tryAcquire(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	need := min(n, b.size)
	for b.free < need && len(b.spare) > 0 {
		last := len(b.spare) - 1
		b.free += int64(cap(b.spare[last]))
		b.spare[last] = nil
		b.spare = b.spare[:last]
	}
	if b.free < need {
		return false
	}
	b.free -= n
	b.usage.set(b.size - b.free)
	return true
}

// acquire takes n bytes, and waits until they are available. own are the bytes that the caller has
// taken before. If no others are taken, waiting is useless, and acquire returns false.
func (b *byteBudget) acquire(ctx context.Context, n, own int64) (bool, error) {
	for !b.tryAcquire(n) {
		if own > 0 && b.isOnly(own) {
			return false, nil
		}
		select {
		case <-b.freed:
		case <-ctx.Done():
			return false, canceled(ctx)
		}
	}
	return true, nil
}

// isOnly reports whether no other bytes are taken.
func (b *byteBudget) isOnly(own int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size-b.free <= own
}

// release returns n bytes.
func (b *byteBudget) release(n int64) {
	b.mu.Lock()
	b.free += n
	b.usage.set(b.size - b.free)
	b.mu.Unlock()
	b.signal()
}

// recycle keeps a buffer for reuse. Its bytes stay taken until it is dropped. A buffer above
// limit, of a single large asset, is not kept.
func (b *byteBudget) recycle(buffer []byte, limit int) {
	if cap(buffer) == 0 || cap(buffer) > limit {
		b.release(int64(cap(buffer)))
		return
	}
	b.mu.Lock()
	b.spare = append(b.spare, buffer[:0])
	b.mu.Unlock()
	b.signal()
}

// reuse returns a buffer, whose bytes are taken already; nil if there is none.
func (b *byteBudget) reuse() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.spare) == 0 {
		return nil
	}
	last := len(b.spare) - 1
	buffer := b.spare[last]
	b.spare = b.spare[:last]
	return buffer
}

func (b *byteBudget) signal() {
	select {
	case b.freed <- struct{}{}:
	default:
	}
}
