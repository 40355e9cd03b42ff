package syncrun

import (
	"context"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
)

// A slow gateway slows the reading down, be it seconds for a call or an hour's rate limit.
// A domain controller does not wait that long: it closes connections that are idle for 15
// minutes, drops paged searches for others, and spends at most two minutes on a request
// (MaxConnIdleTime, MaxResultSetsPerConn, MaxQueryDuration; MS-ADTS 3.1.1.3.4.6). So an idle
// session is replaced before it is used, and a search that is lost while the gateway slowed
// it down is restarted: everything read so far is settled first and is then unchanged, so
// that the search passes it quickly.

// patience is how long a server may have been left waiting before a lost search counts as
// caused by the gateway.
const patience = 5 * time.Second

// session is a session with one server that is replaced when it was idle or lost. It serves
// one goroutine.
type session struct {
	*directory.Session
	used     time.Time // when it last worked
	patience time.Duration
	log      zerolog.Logger
}

// renew replaces the session if it was idle.
func (s *session) renew(ctx context.Context) error {
	if time.Since(s.used) < s.patience {
		return nil
	}
	return s.reconnect(ctx)
}

func (s *session) reconnect(ctx context.Context) error {
	next, err := s.Again(ctx)
	if err != nil {
		return err
	}
	s.Close()
	s.Session, s.used = next, time.Now()
	return nil
}

// once searches without a restart.
func (s *session) once(ctx context.Context, q directory.Search, each func(*ad.Entry) error) error {
	if err := s.renew(ctx); err != nil {
		return err
	}
	_, err := s.Search(ctx, q, each)
	s.used = time.Now()
	return err
}

// search searches, and restarts a search that is lost while the gateway slowed it down. each
// also returns for how long it waited for the gateway. Before a restart, settle is called to
// wait until everything read so far is recorded, and restart once the session is replaced.
//
// Each attempt must get further than the one before, else its loss is returned. That bounds
// the attempts, and since everything read so far is settled by then, each one makes progress.
func (s *session) search(ctx context.Context, q directory.Search, each func(*ad.Entry) (waited time.Duration, err error), settle, restart func() error) (pages int, err error) {
	for furthest := 0; ; {
		if err := s.renew(ctx); err != nil {
			return 0, err
		}
		var waited time.Duration
		var own error // of each: not the server's
		read := 0
		pages, err = s.Search(ctx, q, func(entry *ad.Entry) error {
			var w time.Duration
			w, own = each(entry)
			waited += w
			read++
			return own
		})
		s.used = time.Now()
		lost := err != nil && own == nil && ctx.Err() == nil && (fault.ClassOf(err) == fault.Transient || fault.ClassOf(err) == fault.Incomplete)
		if !lost || waited < s.patience || read <= furthest {
			return pages, err
		}
		furthest = read
		s.log.Warn().EmbedObject(fault.Fields(err)).Str("dc", s.Address).Int("objects", read).Int64("wait_ms", waited.Milliseconds()).Msg(MsgSearchRestarted)
		if err := settle(); err != nil {
			return pages, err
		}
		if err := s.reconnect(ctx); err != nil {
			return pages, err
		}
		if err := restart(); err != nil {
			return pages, err
		}
	}
}

// connect opens the first session.
func connect(ctx context.Context, source Source, patience time.Duration, log zerolog.Logger) (*session, error) {
	opened, err := directory.Connect(ctx, source.Directory)
	if err != nil {
		return nil, err
	}
	event := log.Info().Str("dc", opened.Address)
	if name := opened.RootDSE.DNSHostName; name != "" {
		event.Str("dns_host_name", name)
	}
	event.Bool("domain_controller", opened.RootDSE.IsDomainController()).Msg(MsgDirectoryConnected)
	return &session{opened, time.Now(), patience, log}, nil
}

// concurrently does two things at a time, where the server accepts a second session, and
// else one after the other.
func (s *session) concurrently(ctx context.Context, one, other func(context.Context, *session) error) error {
	opened, err := s.Again(ctx)
	if err != nil {
		s.log.Info().EmbedObject(fault.Fields(err)).Msg(MsgSecondSessionFailed)
		if err := one(ctx, s); err != nil {
			return err
		}
		return other(ctx, s)
	}
	second := &session{opened, time.Now(), s.patience, s.log}
	defer func() { second.Close() }() // whatever replaced it
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return one(ctx, s) })
	both.Go(func() error { return other(ctx, second) })
	return both.Wait()
}
