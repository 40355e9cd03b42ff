package syncrun

import "sync/atomic"

// Progress is how far a run has come, for whoever watches it from another
// goroutine. The methods that count are for nil too, when nobody does.
type Progress struct {
	// Expected is how many objects the pass will read, as far as the last one tells;
	// 0: nobody knows.
	Expected atomic.Int64
	Read     atomic.Int64 // objects that were read and mapped
	Changed  atomic.Int64 // of those, the ones to be sent
	Settled  atomic.Int64 // objects that the gateway has answered for, deletions included
}

func (p *Progress) expect(objects int) {
	if p != nil {
		p.Expected.Store(int64(objects))
	}
}

func (p *Progress) read() {
	if p != nil {
		p.Read.Add(1)
	}
}

// unread takes objects back that are read once more.
func (p *Progress) unread(objects int) {
	if p != nil {
		p.Read.Add(int64(-objects))
	}
}

func (p *Progress) changed() {
	if p != nil {
		p.Changed.Add(1)
	}
}

func (p *Progress) settle(objects int) {
	if p != nil {
		p.Settled.Add(int64(objects))
	}
}
