package syncrun

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
)

// A slow gateway blocks the reading, for seconds during a call or for an hour by a rate limit.
// A domain controller does not wait that long. It closes connections that are idle for 15
// minutes, drops paged searches in favor of others, and spends at most two minutes on a
// request (MaxConnIdleTime, MaxResultSetsPerConn, MaxQueryDuration; MS-ADTS 3.1.1.3.4.6).
//
// So an idle session is replaced before it is used, and a search that is lost during
// backpressure is restarted. All objects read before the restart are flushed first. They are
// then unchanged, so that the restarted search passes them quickly.

// defaultIdleLimit is how long a session may be idle. It is also the minimum time blocked by
// the gateway at which the loss of a search counts as caused by backpressure.
const defaultIdleLimit = 5 * time.Second

// session is a directory session that is replaced after it was idle or lost. It is not safe
// for concurrent use.
type session struct {
	*directory.Session
	lastUsed  time.Time
	idleLimit time.Duration
	log       zerolog.Logger
	// filtered are the attributes that are not replicated to the server.
	filtered []string
	// failed is whether the server did not complete a request. Lost searches that are restarted
	// do not count.
	failed *atomic.Bool
}

// reconnectIfIdle replaces the session if it was idle. If a load balancer leads to other domain
// controllers only, the session is used on: most likely it is still open.
func (s *session) reconnectIfIdle(ctx context.Context) error {
	if time.Since(s.lastUsed) < s.idleLimit {
		return nil
	}
	if err := s.reconnect(ctx); !errors.Is(err, directory.ErrDifferentController) {
		return err
	}
	return nil
}

func (s *session) reconnect(ctx context.Context) error {
	next, err := s.Reconnect(ctx)
	if err != nil {
		return err
	}
	s.Close()
	s.Session, s.lastUsed = next, time.Now()
	return nil
}

// searchOnce runs a search without restarts.
func (s *session) searchOnce(ctx context.Context, q directory.Search, each func(*ad.Entry) error) error {
	if err := s.reconnectIfIdle(ctx); err != nil {
		return err
	}
	_, err := s.Search(ctx, q, each)
	s.lastUsed = time.Now()
	return err
}

// search runs a search, and restarts it if it is lost during backpressure. It calls each for
// every entry; each also returns how long the gateway blocked it. Before a restart, search
// calls flush, which waits until everything read so far is recorded. It then reconnects and
// calls restart.
//
// Each attempt must get further than the previous one, else search returns the error. This
// bounds the number of attempts.
func (s *session) search(ctx context.Context, q directory.Search, each func(*ad.Entry) (waited time.Duration, err error), flush, restart func() error) (pages int, err error) {
	for furthest := 0; ; {
		if err := s.reconnectIfIdle(ctx); err != nil {
			return 0, err
		}
		var waited time.Duration
		var eachErr error
		read := 0
		pages, err = s.Search(ctx, q, func(entry *ad.Entry) error {
			var w time.Duration
			w, eachErr = each(entry)
			waited += w
			read++
			return eachErr
		})
		s.lastUsed = time.Now()
		lost := err != nil && eachErr == nil && ctx.Err() == nil && (fault.ClassOf(err) == fault.Transient || fault.ClassOf(err) == fault.Incomplete)
		if !lost || waited < s.idleLimit || read <= furthest {
			return pages, err
		}
		furthest = read
		s.log.Warn().EmbedObject(fault.Fields(err)).Str("dc", s.Address).Int("objects", read).Int64("wait_ms", waited.Milliseconds()).Msg(MsgSearchRestarted)
		if err := flush(); err != nil {
			return pages, err
		}
		if err := s.reconnect(ctx); err != nil {
			return pages, err
		}
		s.failed.Store(false)
		if err := restart(); err != nil {
			return pages, err
		}
	}
}

// connect opens the first session of a run.
func connect(ctx context.Context, source Source, idleLimit time.Duration, log zerolog.Logger) (*session, error) {
	failed := new(atomic.Bool)
	options, onRequest := source.Directory, source.Directory.OnRequest
	options.OnRequest = func(request string, class fault.Class, duration time.Duration) {
		if class == fault.Transient || class == fault.Incomplete {
			failed.Store(true)
		}
		onRequest(request, class, duration)
	}
	opened, err := directory.Connect(ctx, options)
	if err != nil {
		return nil, err
	}
	failed.Store(false) // of other servers
	event := log.Info().Str("dc", opened.Address)
	if name := opened.RootDSE.DNSHostName; name != "" {
		event.Str("dns_host_name", name)
	}
	event.Bool("domain_controller", opened.RootDSE.IsDomainController()).Msg(MsgDirectoryConnected)
	if n := len(opened.Unreached); n > 0 {
		log.Warn().EmbedObject(fault.Fields(opened.Unreached[0])).Int("controllers", n).Msg(MsgControllersUnreached)
	}
	return &session{Session: opened, lastUsed: time.Now(), idleLimit: idleLimit, log: log, failed: failed}, nil
}

// runConcurrently runs two functions concurrently, the second one in a session of its own.
// If the server refuses a second session, it runs them sequentially.
func (s *session) runConcurrently(ctx context.Context, first, second func(context.Context, *session) error) error {
	failed := s.failed.Load()
	opened, err := s.Reconnect(ctx)
	if errors.Is(err, directory.ErrInvalidCredentials) { // the account has changed since the first session
		return err
	}
	if err != nil {
		s.failed.Store(failed) // one session suffices
		s.log.Info().EmbedObject(fault.Fields(err)).Msg(MsgSecondSessionFailed)
		if err := first(ctx, s); err != nil {
			return err
		}
		return second(ctx, s)
	}
	other := &session{Session: opened, lastUsed: time.Now(), idleLimit: s.idleLimit, log: s.log, filtered: s.filtered, failed: s.failed}
	defer func() { other.Close() }() // a reconnect replaces the session inside
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return first(ctx, s) })
	group.Go(func() error { return second(ctx, other) })
	return group.Wait()
}
