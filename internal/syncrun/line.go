package syncrun

import (
	"context"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
)

// A gateway that takes its time, be it seconds for a call or an hour's rate limit,
// holds the reading up, and a domain controller does not wait for that: it ends
// connections that are idle for 15 minutes, gives up paged searches that others push
// out, and answers no request for longer than two minutes (MaxConnIdleTime,
// MaxResultSetsPerConn, MaxQueryDuration; MS-ADTS 3.1.1.3.4.6). The next run would
// fare no better, week after week. So a session that was idle is opened anew before it
// is used, and a search that is lost while the gateway held it up begins anew: once
// everything that was read so far is settled, it goes past that at the speed of the
// wire, since it is unchanged, and on from there.

// patience is how long a server may have been left waiting before it counts as the
// gateway's doing that it has gone.
const patience = 5 * time.Second

// line leads to the one server that a pass reads from.
type line struct {
	*directory.Session
	used time.Time // when it was last known to be good
}

func newLine(session *directory.Session) *line { return &line{session, time.Now()} }

// renew opens another session with the server, if this one was idle for long.
func (l *line) renew(ctx context.Context, patience time.Duration) error {
	if time.Since(l.used) < patience {
		return nil
	}
	return l.again(ctx)
}

func (l *line) again(ctx context.Context) error {
	next, err := l.Again(ctx)
	if err != nil {
		return err
	}
	l.Close()
	l.Session, l.used = next, time.Now()
	return nil
}

// search is Session.Search on a line. each also says for how long it was held up;
// before the search begins anew, anew is called.
//
// Each search must come further than the one before it, or its loss is the run's:
// that bounds them, and whatever was read is settled by then, so that every one makes
// progress.
func (p *pass) search(ctx context.Context, l *line, q directory.Search, each func(*ad.Entry) (time.Duration, error), anew func() error) (pages int, err error) {
	for furthest := 0; ; {
		if err := l.renew(ctx, p.patience); err != nil {
			return 0, err
		}
		var held time.Duration
		var ours error // of each, and nothing that the server is to blame for
		read := 0
		pages, err = l.Search(ctx, q, func(entry *ad.Entry) error {
			var waited time.Duration
			waited, ours = each(entry)
			held += waited
			read++
			return ours
		})
		l.used = time.Now()
		lost := err != nil && ours == nil && ctx.Err() == nil && (fault.Of(err) == fault.Transient || fault.Of(err) == fault.Incomplete)
		if !lost || held < p.patience || read <= furthest {
			return pages, err
		}
		furthest = read
		p.log.Warn().Err(err).Str("dc", l.Address).Int("objects", read).Int64("held_ms", held.Milliseconds()).
			Msg(MsgSearchRestarted)
		if err := p.settle(); err != nil {
			return pages, err
		}
		if err := l.again(ctx); err != nil {
			return pages, err
		}
		if err := anew(); err != nil {
			return pages, err
		}
	}
}
