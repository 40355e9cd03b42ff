package syncrun

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/upload"
)

// pass is what a run does with the directory: it reads, and draws the consequences.
type pass struct {
	*Runner
	plan
	source  Source
	session *directory.Session // the first one; line may lead to a later one
	line    *line
	settle  func() error // waits until everything that was added is recorded
	now     time.Time
	mode    Mode
	log     zerolog.Logger

	users, groups tally
	posture       posture
	held          []identity.Object // deletions that the guard holds
	totals        upload.Totals
	account       *Account

	looked bool      // for tombstones
	gone   []ad.GUID // which were found
}

// reading is a search and the tally of what it finds.
type reading struct {
	search
	tally *tally
}

// readings are what is read below the profile's base. The first is the largest.
func (p *pass) readings() []reading {
	if p.source.Posture {
		return p.posture.readings
	}
	return []reading{{p.searches[0], &p.users}, {p.searches[1], &p.groups}}
}

// tallies are all that is read, of whatever base.
func (p *pass) tallies() []reading {
	if p.source.Posture {
		return append(slices.Clip(p.posture.readings), p.posture.roles, p.posture.domain)
	}
	return p.readings()
}

// addFunc takes an asset that is to be sent.
type addFunc = func(identity.Asset) error

// deliver reads, sends what differs from the index, settles deletions, and moves
// the watermark.
func (p *pass) deliver(ctx context.Context) error {
	if p.kind == full && p.comparable {
		p.mode.Progress.expect(p.size)
	}
	if p.mode.DryRun {
		return p.produce(ctx, func(asset identity.Asset) error {
			if p.mode.Show != nil {
				p.mode.Show(asset, false)
			}
			return nil
		}, func() error { return nil })
	}
	delivery, err := p.Store.Begin(p.invocation, p.now)
	if err != nil {
		return err
	}
	options := p.Upload
	if options.Untried, err = p.Store.Untried(); err != nil {
		return err
	}
	p.totals, err = upload.Run(ctx, p.Gateway, options, &journal{Delivery: delivery, log: p.log, outcomes: p.account.Objects, progress: p.mode.Progress}, p.produce)
	p.account.end("drain")
	if err != nil {
		return err
	}
	defer p.account.end("record")
	for _, r := range p.tallies() {
		if err := p.Store.Reschedule(r.tally.reschedule); err != nil {
			return err
		}
	}
	// The watermark moves last: a crash before this repeats work, never skips it.
	return p.Store.Advance(p.progress())
}

// produce reads the directory and adds what is to be sent.
func (p *pass) produce(ctx context.Context, add addFunc, settle func() error) error {
	p.settle = settle
	condition := ""
	if p.kind == delta {
		condition = "(uSNChanged>=" + strconv.FormatInt(int64(p.since), 10) + ")"
	}
	err := p.readAll(ctx, condition, add)
	p.account.end("read")
	if err != nil {
		return err
	}
	defer p.account.end("settle")
	if p.kind == delta {
		if err := p.readAgain(ctx, add); err != nil {
			return err
		}
	}
	if p.source.Posture {
		if err := p.readRoles(ctx, add); err != nil {
			return err
		}
		if err := p.readDomain(ctx, add); err != nil {
			return err
		}
	}
	return p.settleDeletions(ctx, add)
}

// readAll reads the users, and everything else beside them.
func (p *pass) readAll(ctx context.Context, condition string, add addFunc) error {
	readings := p.readings()
	some := func(readings []reading) func(context.Context, *line) error {
		return func(ctx context.Context, l *line) error {
			for _, r := range readings {
				if err := p.read(ctx, l, r, condition, add); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return p.beside(ctx, some(readings[:1]), some(readings[1:]))
}

// beside does one thing beside another where the server grants a second session,
// and else after it.
func (p *pass) beside(ctx context.Context, one, other func(context.Context, *line) error) error {
	session, err := p.session.Again(ctx)
	if err != nil {
		p.log.Info().Err(err).Msg(MsgSecondSessionFailed)
		if err := one(ctx, p.line); err != nil {
			return err
		}
		return other(ctx, p.line)
	}
	second := newLine(session)
	defer func() { second.Close() }() // the one that it leads to then
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return one(ctx, p.line) })
	both.Go(func() error { return other(ctx, second) })
	return both.Wait()
}

// guidsAtOnce bounds the filter that names objects.
const guidsAtOnce = 100

// readAgain reads the objects that are due although they have not changed.
func (p *pass) readAgain(ctx context.Context, add addFunc) error {
	guids, err := p.again()
	if err != nil {
		return err
	}
	return p.readThese(ctx, p.unseen(guids), add)
}

func (p *pass) readThese(ctx context.Context, guids []ad.GUID, add addFunc) error {
	for some := range slices.Chunk(guids, guidsAtOnce) {
		condition := directory.FilterByGUID(some)
		for _, r := range p.readings() {
			if err := p.read(ctx, p.line, r, condition, add); err != nil {
				return err
			}
		}
	}
	return nil
}

// read streams objects of one kind through the map, and adds those that changed.
func (p *pass) read(ctx context.Context, l *line, s reading, condition string, add addFunc) error {
	t := s.tally
	start, before := time.Now(), *t
	filter := s.filterOn(l.RootDSE)
	if condition != "" {
		filter = "(&" + filter + condition + ")"
	}
	query := directory.Search{Base: p.source.Base, Scope: p.source.Scope, Filter: filter, Attributes: s.mapper.Attributes, ExtendedDN: s.mapper.ExtendedDN}
	if s.anywhere {
		query.Base, query.Scope = p.domainBase(), directory.Subtree
	}
	p.log.Debug().Str("kind", s.kind.String()).Str("dc", l.Address).Str("base_dn", query.Base).Stringer("scope", query.Scope).Str("filter", filter).Msg(MsgSearchStarted)
	var json []byte
	pages, err := p.search(ctx, l, query, func(entry *ad.Entry) (held time.Duration, err error) {
		asset, err := s.mapper.Map(json, entry, p.now)
		if err != nil {
			p.skip(s, entry, err)
			return 0, nil
		}
		json = asset.JSON
		return p.take(asset, t, add)
	}, func() error { return p.readAnew(t, before) })
	if err != nil {
		return err
	}
	p.log.Info().Str("kind", s.kind.String()).Str("dc", l.Address).Str("base_dn", query.Base).Int("page", pages).Int("objects", t.mapped-before.mapped).
		Int("skipped", t.skipped-before.skipped).Int("unparsed", t.unparsed-before.unparsed).Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgDirectoryRead)
	return nil
}
