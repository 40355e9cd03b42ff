package cli

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/request"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// acceptRequests makes a daemon accept the requests of commands for a run, until stop is called. The
// server is nil after an error.
func acceptRequests(c *config.Config, log zerolog.Logger) (server *request.Server, stop func(), err error) {
	server, err = request.Listen(c.Service.StateDir)
	if err != nil {
		return nil, func() {}, err
	}
	server.Target, server.Profile, server.Log = c.Run.Target, c.Run.Profile, log.With().Str("component", "request").Logger()
	return server, server.Close, nil
}

// watchRequests returns a channel that receives a value whenever a request waits, until stop is
// called. server can be nil.
func watchRequests(ctx context.Context, server *request.Server) (waiting <-chan struct{}, stop func()) {
	if server == nil {
		return nil, func() {}
	}
	return server.Watch(ctx)
}

// progressInterval is the time between two updates of the progress for a command.
const progressInterval = 500 * time.Millisecond

// runRequested executes the requests that wait, one after the other. It returns false if there is
// none.
func runRequested(ctx context.Context, server *request.Server, run func(context.Context, syncrun.RunOptions) state.Run) (found bool) {
	for ctx.Err() == nil {
		job, ok := server.Next()
		if !ok {
			break
		}
		found = true
		options := syncrun.RunOptions{Full: job.Full, AllowDeletes: job.AllowDeletes, Resend: job.Resend, Requested: true, Progress: &syncrun.Progress{}}
		stop := func() {}
		if job.Progress {
			stop = startWorker(ctx, func(ctx context.Context) { showRequested(ctx, job, options.Progress) })
		}
		result := run(ctx, options)
		stop()
		job.Respond(request.Response{Run: &result})
	}
	return found
}

// showRequested passes the progress of a run to the command that requested it, until ctx ends.
func showRequested(ctx context.Context, job *request.Job, p *syncrun.Progress) {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	var shown request.Progress
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := request.Progress{Phase: p.Phase(), Expected: p.Expected.Load(), Read: p.Read.Load(), Changed: p.Changed.Load(), Acknowledged: p.Acknowledged.Load()}
		if now != shown {
			job.Show(now)
			shown = now
		}
	}
}

// phaseWaiting is the phase of a requested run that has not started.
const phaseWaiting = "waiting"

// runInDaemon requests a run from the daemon of the state directory, waits for it, and returns its
// record and its error. The error is request.ErrNotServed if there is no such daemon, or if it has
// ended before it started the run.
func (p *program) runInDaemon(ctx context.Context, c *config.Config, options syncrun.RunOptions, log zerolog.Logger) (state.Run, error) {
	progress, hideProgress := p.showProgress(0)
	defer hideProgress()
	pending, log, err := submit(c, request.Request{
		Progress: progress != nil, Options: request.Options{Full: options.Full, AllowDeletes: options.AllowDeletes, Resend: options.Resend},
	}, log)
	if err != nil {
		return state.Run{}, err
	}
	defer pending.Close()
	log.Info().Msg(MsgRunRequested)
	started := false
	response, err := await(ctx, pending, log, func(now *request.Progress) {
		if now == nil {
			progress.SetPhase(phaseWaiting)
			return
		}
		if !started {
			started = true
			log.Info().Msg(MsgRequestStarted)
		}
		if progress != nil {
			progress.SetPhase(now.Phase)
			progress.Expected.Store(now.Expected)
			progress.Read.Store(now.Read)
			progress.Changed.Store(now.Changed)
			progress.Acknowledged.Store(now.Acknowledged)
		}
	})
	switch {
	case err != nil:
		return state.Run{}, err
	case response.Run == nil:
		return state.Run{}, response.Err()
	}
	return *response.Run, response.Err()
}

// copyFromDaemon requests a copy of the state file from the daemon of the state directory, and
// returns the directory of the copy, which remove removes. The error is as that of runInDaemon.
func (p *program) copyFromDaemon(ctx context.Context, c *config.Config, log zerolog.Logger) (dir string, remove func(), err error) {
	pending, log, err := submit(c, request.Request{Copy: true}, log)
	if err != nil {
		return "", nil, err
	}
	response, err := await(ctx, pending, log, func(*request.Progress) {})
	if err = errors.Join(err, response.Err()); err != nil {
		pending.Close()
		return "", nil, err
	}
	return pending.CopyDir(), pending.Close, nil
}

// submit passes a request to the daemon.
func submit(c *config.Config, r request.Request, log zerolog.Logger) (*request.Pending, zerolog.Logger, error) {
	r.Version, r.Target, r.Profile = version, c.Run.Target, c.Run.Profile
	pending, err := request.Submit(c.Service.StateDir, r)
	if err != nil {
		return nil, log, err
	}
	return pending, log.With().Str("component", "request").Str("request", pending.ID).Logger(), nil
}

// await waits for the response to a request.
func await(ctx context.Context, pending *request.Pending, log zerolog.Logger, observe func(*request.Progress)) (request.Response, error) {
	response, err := pending.Await(ctx, observe)
	if errors.Is(err, request.ErrNotServed) {
		log.Info().Msg(MsgDaemonEnded)
	}
	return response, err
}
