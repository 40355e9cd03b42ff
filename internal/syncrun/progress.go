package syncrun

import "sync/atomic"

// Progress is the progress of a run. Other goroutines may read it during the run. Its methods
// accept a nil receiver and then do nothing.
type Progress struct {
	// Expected is the number of objects that the sync will read, estimated from the index;
	// 0: unknown.
	Expected     atomic.Int64
	Read         atomic.Int64 // objects read and mapped
	Changed      atomic.Int64 // objects read that are to be sent
	Acknowledged atomic.Int64 // objects that the gateway accepted or rejected, including deletions
}

func (p *Progress) setExpected(objects int) {
	if p != nil {
		p.Expected.Store(int64(objects))
	}
}

// addRead adds objects that were read. A negative number subtracts objects that are read
// again.
func (p *Progress) addRead(objects int) {
	if p != nil {
		p.Read.Add(int64(objects))
	}
}

func (p *Progress) addChanged(objects int) {
	if p != nil {
		p.Changed.Add(int64(objects))
	}
}

func (p *Progress) addAcknowledged(objects int) {
	if p != nil {
		p.Acknowledged.Add(int64(objects))
	}
}
