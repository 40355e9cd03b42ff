package syncrun

import (
	"context"
	"sync"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// postureSet is what a reader reads with security posture.
type postureSet struct {
	queries       []query // users, groups, service accounts
	roles, domain query
	memberships   memberships
}

func newPostureSet(search Search, root directory.RootDSE, m memberships) *postureSet {
	of := func(kind identity.Kind, anywhere bool) query {
		mapper := identity.NewPostureMapper(kind)
		if m.partial {
			mapper.UsePart(m.graph)
		} else {
			mapper.Use(m.graph)
		}
		return query{kind: kind, filter: search.Filter(kind, root), mapper: mapper, anywhere: anywhere, firstSkipped: new(sync.Once)}
	}
	return &postureSet{
		queries: []query{of(identity.User, false), of(identity.Group, false), of(identity.ServiceAccount, false)},
		roles:   of(identity.Role, true), domain: of(identity.Domain, true), memberships: m,
	}
}

// readPosture reads the roles and the domain, in every run: the members of a role may change
// without the role, and both are few.
func (r *reader) readPosture(ctx context.Context, to sink) (found findings, err error) {
	found.seen = append(found.seen, r.posture.memberships.unidentified)
	t, err := r.readRoles(ctx, to)
	found.count(identity.Role, t)
	if err != nil {
		return found, err
	}
	t, err = r.readDomain(ctx, to)
	found.count(identity.Domain, t)
	return found, err
}

func (r *reader) readRoles(ctx context.Context, to sink) (tally, error) {
	graph := r.posture.memberships.graph
	var groups []ad.GUID
	for _, h := range graph.Holders() {
		groups = append(groups, graph.GUID(h.Group))
	}
	if len(groups) == 0 {
		return tally{}, nil
	}
	return r.read(ctx, r.session, r.posture.roles, directory.FilterByGUID(groups), to)
}

// readDomain reads the domain's own entry and what belongs to it.
func (r *reader) readDomain(ctx context.Context, to sink) (tally, error) {
	s, q := r.session, r.posture.domain
	base := s.RootDSE.DefaultNamingContext
	if base == "" { // a server that has no domain
		return tally{}, nil
	}
	c := identity.NewCollector()
	if err := r.collect(ctx, s, c, base); err != nil {
		return tally{}, err
	}
	compare := r.newComparer()
	search := directory.Search{Base: base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: q.mapper.Attributes, ExtendedDN: true}
	err := s.once(ctx, search, func(entry *ad.Entry) error {
		asset, err := q.mapper.MapDomain(nil, entry, c, r.start)
		if err != nil {
			compare.skip(r.log, q, entry, err)
			return nil
		}
		_, err = compare.process(asset, to)
		return err
	})
	return compare.tally, err
}

// The containers of what belongs to a domain.
const (
	systemContainer   = "CN=System,"
	policiesContainer = "CN=Password Settings Container,CN=System,"
	recycleBinFeature = "CN=Recycle Bin Feature,CN=Optional Features,CN=Directory Service,CN=Windows NT,CN=Services,"
)

// domainPart is something that belongs to a domain and has entries of its own.
type domainPart struct {
	name      string // in the asset
	container string // that must exist and be readable, else finding nothing proves nothing; "": none
	search    directory.Search
	part      *identity.Part
	required  bool // every domain has one
}

func domainParts(c *identity.Collector, base string, root directory.RootDSE) []domainPart {
	subtree := func(filter string) directory.Search {
		return directory.Search{Base: base, Scope: directory.Subtree, Filter: filter}
	}
	below := func(container, filter string) directory.Search {
		return directory.Search{Base: container + base, Scope: directory.OneLevel, Filter: filter}
	}
	recycleBin := directory.Search{Base: recycleBinFeature + root.ConfigurationContext, Scope: directory.Base, Filter: "(objectClass=*)"}
	return []domainPart{
		{"krbtgtPasswordLastChangedAt", "", subtree("(&(objectClass=user)(sAMAccountName=krbtgt))"), c.Krbtgt, true},
		{"recycleBin", "", recycleBin, c.RecycleBin, true},
		{"fineGrainedPasswordPolicies", policiesContainer + base, below(policiesContainer, "(objectClass=msDS-PasswordSettings)"), c.Policies, false},
		{"trusts", systemContainer + base, below(systemContainer, "(objectClass=trustedDomain)"), c.Trusts, false},
		{"domainControllers", "", subtree("(&(objectClass=computer)(|(primaryGroupID=516)(primaryGroupID=521)))"), c.Controllers, true},
	}
}

// collect reads what belongs to the domain and is not in its own entry. What the account may
// not read is named in the asset and fails nothing.
func (r *reader) collect(ctx context.Context, s *session, c *identity.Collector, base string) error {
	c.ForestLevel(s.RootDSE.ForestLevel)
	if s.RootDSE.ForestLevel == "" {
		c.Unreadable("forestFunctionalLevel")
	}
	for _, part := range domainParts(c, base, s.RootDSE) {
		readable, err := r.collectPart(ctx, s, part)
		if err != nil {
			return err
		}
		if !readable {
			c.Unreadable(part.name)
		}
	}
	return nil
}

// collectPart reports whether the part can be read.
func (r *reader) collectPart(ctx context.Context, s *session, part domainPart) (readable bool, err error) {
	readable = true
	if part.container != "" {
		if readable, err = isReadable(ctx, s, part.container); err != nil {
			return false, err
		}
	}
	found := 0
	part.search.Attributes, part.search.ExtendedDN = part.part.Attributes, true
	err = s.once(ctx, part.search, func(entry *ad.Entry) error {
		if part.part.Add(entry, r.start) {
			found++
		} else {
			readable = false // the entry is visible, none of its attributes is readable
		}
		return nil
	})
	if err != nil && fault.ClassOf(err) != fault.Refused {
		return false, err
	}
	return err == nil && readable && (found > 0 || !part.required), nil
}

// isReadable reports whether the account can read what a container is.
func isReadable(ctx context.Context, s *session, container string) (readable bool, err error) {
	search := directory.Search{Base: container, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{"objectClass"}}
	err = s.once(ctx, search, func(entry *ad.Entry) error {
		readable = len(entry.First(0)) > 0
		return nil
	})
	if fault.ClassOf(err) == fault.Refused {
		return false, nil
	}
	return readable, err
}
