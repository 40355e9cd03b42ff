package syncrun

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// postureQueries are the queries of a reader with security posture.
type postureQueries struct {
	queries       []query // users, groups, service accounts
	roles, domain query
	memberships   memberships
}

func newPostureQueries(search SearchOptions, root directory.RootDSE, m memberships) *postureQueries {
	newQuery := func(kind identity.Kind, wholeDomain bool) query {
		mapper := identity.NewPostureMapper(kind)
		mapper.DomainController = root.IsDomainController()
		return query{kind: kind, filter: search.Filter(kind, root), mapper: mapper, wholeDomain: wholeDomain, warnOnce: new(sync.Once)}
	}
	p := &postureQueries{
		queries: []query{newQuery(identity.User, false), newQuery(identity.Group, false), newQuery(identity.ServiceAccount, false)},
		roles:   newQuery(identity.Role, true), domain: newQuery(identity.Domain, true),
	}
	p.use(m)
	return p
}

// use sets the memberships.
func (p *postureQueries) use(m memberships) {
	p.memberships = m
	for _, q := range append(p.queries, p.roles, p.domain) {
		if m.partial {
			q.mapper.UsePartialGraph(m.graph)
		} else {
			q.mapper.UseGraph(m.graph)
		}
	}
}

// complete completes the memberships after the users were read.
func (p *postureQueries) complete(ctx context.Context) error {
	m, err := p.memberships.accounts.finish(ctx, p.memberships)
	if err == nil {
		p.use(m)
	}
	return err
}

// beginPosture reads what the reading of accounts depends on. It returns the collector of the domain's
// parts.
func (r *reader) beginPosture(ctx context.Context) (*identity.Collector, error) {
	if r.descriptors != nil {
		if err := r.descriptors.begin(ctx, r); err != nil {
			return nil, err
		}
	}
	return r.readControllers(ctx)
}

// readControllers reads the domain controllers into a collector of the domain's parts. The facts of
// accounts that may delegate to them depend on their names, so it must be called before the accounts are
// read.
func (r *reader) readControllers(ctx context.Context) (*identity.Collector, error) {
	collector, base := identity.NewCollector(), r.session.RootDSE.DefaultNamingContext
	if base == "" { // the server has no domain
		return collector, nil
	}
	if r.descriptors != nil {
		collector.UseDescriptors(r.descriptors.domains)
	}
	readable, err := r.collectPart(ctx, r.session, collector, controllersPart(collector, base))
	if err != nil {
		return nil, err
	}
	hosts := collector.ControllerHosts(readable)
	for _, q := range r.posture.queries {
		q.mapper.UseControllers(hosts)
	}
	return collector, nil
}

// readPosture reads the roles and the domain. Every run does so: the members of a role may
// change without the role, and there are few of both. collector is that of readControllers.
func (r *reader) readPosture(ctx context.Context, collector *identity.Collector, to sink) (result readResult, err error) {
	result.seen = append(result.seen, r.posture.memberships.rolesWithoutSID)
	result.add(unreadableMembers(len(r.posture.memberships.unreadableGroups)))
	search, err := r.readRoles(ctx, to)
	result.addSearch(identity.Role, search)
	if err != nil {
		return result, err
	}
	search, err = r.readDomain(ctx, collector, to)
	result.addSearch(identity.Domain, search)
	return result, err
}

// readPostureAgain reads the roles and the domain once more.
func (r *reader) readPostureAgain(ctx context.Context, to sink) (readResult, error) {
	collector, err := r.readControllers(ctx)
	if err != nil {
		return readResult{}, err
	}
	return r.readPosture(ctx, collector, to)
}

func (r *reader) readRoles(ctx context.Context, to sink) (searchResult, error) {
	graph := r.posture.memberships.graph
	var groups []ad.GUID
	for _, holder := range graph.RoleMembers() {
		groups = append(groups, graph.GUID(holder.Group))
	}
	if len(groups) == 0 {
		return searchResult{}, nil
	}
	return r.read(ctx, r.session, r.posture.roles, directory.FilterByGUID(groups), to)
}

// readDomain reads the domain's entry and the related entries.
func (r *reader) readDomain(ctx context.Context, collector *identity.Collector, to sink) (searchResult, error) {
	s, q := r.session, r.posture.domain
	base := s.RootDSE.DefaultNamingContext
	if base == "" { // the server has no domain
		return searchResult{}, nil
	}
	if err := r.addPrivilegedParents(ctx); err != nil {
		return searchResult{}, err
	}
	if err := r.collect(ctx, s, collector, base); err != nil {
		return searchResult{}, err
	}
	c := r.newComparer(q.kind)
	search := directory.Search{
		Base: base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: q.mapper.Attributes, ExtendedDN: true, Descriptors: r.descriptors.requested(),
	}
	err := s.searchOnce(ctx, search, func(entry *ad.Entry) error {
		indexed, err := c.lookup(q, entry)
		if err != nil {
			return err
		}
		asset, err := q.mapper.MapDomain(nil, entry, collector, r.snapshot.DirectoryNow)
		if err != nil {
			return c.skipEntry(r.log, q, entry, err)
		}
		r.noteDescriptor(q, entry)
		_, err = c.processAsset(asset, indexed, to)
		return err
	})
	if q.mapper.DomainController {
		c.result.missing = q.mapper.Missing()
	}
	return c.result, err
}

// The containers of a domain's related entries.
const (
	systemContainer   = "CN=System,"
	policiesContainer = "CN=Password Settings Container,CN=System,"
	partitions        = "CN=Partitions,"
	directoryService  = "CN=Directory Service,CN=Windows NT,CN=Services,"
	recycleBinFeature = "CN=Recycle Bin Feature,CN=Optional Features," + directoryService
)

const krbtgtFilter = "(&(objectClass=user)(sAMAccountName=krbtgt))"

// crossReferences returns the search for the cross-reference object of a naming context.
func crossReferences(root directory.RootDSE, context string) directory.Search {
	return directory.Search{Base: partitions + root.ConfigurationContext, Scope: directory.OneLevel, Filter: "(&(objectClass=crossRef)" + directory.FilterByValue("nCName", context) + ")"}
}

// domainPart is a part of the domain's asset that comes from entries other than the domain's.
type domainPart struct {
	name string // in the asset
	// container must be readable, because an empty result from an unreadable container proves
	// nothing; "": no container.
	container string
	search    directory.Search
	part      *identity.Part
	required  bool // every domain has such an entry
}

func subtreeSearch(base, filter string) directory.Search {
	return directory.Search{Base: base, Scope: directory.Subtree, Filter: filter}
}

func controllersPart(c *identity.Collector, base string) domainPart {
	return domainPart{"domainControllers", "", subtreeSearch(base, "(&(objectClass=computer)(|(primaryGroupID=516)(primaryGroupID=521)))"), c.Controllers, true}
}

// domainParts returns all parts except for that of controllersPart.
func domainParts(c *identity.Collector, base string, root directory.RootDSE) []domainPart {
	below := func(container, filter string) directory.Search {
		return directory.Search{Base: container + base, Scope: directory.OneLevel, Filter: filter}
	}
	configured := func(dn string) directory.Search {
		return directory.Search{Base: dn + root.ConfigurationContext, Scope: directory.Base, Filter: "(objectClass=*)"}
	}
	names := crossReferences(root, base)
	return []domainPart{
		{"names", "", names, c.Names, true},
		{"krbtgtPasswordLastChangedAt", "", subtreeSearch(base, krbtgtFilter), c.Krbtgt, true},
		{"entraSsoPasswordLastChangedAt", "", subtreeSearch(base, "(&(objectClass=computer)(sAMAccountName=AZUREADSSOACC$))"), c.EntraSSO, false},
		{"recycleBin", "", configured(recycleBinFeature), c.RecycleBin, true},
		{"dsHeuristics", "", configured(directoryService), c.Heuristics, true},
		{"fineGrainedPasswordPolicies", policiesContainer + base, below(policiesContainer, "(objectClass=msDS-PasswordSettings)"), c.Policies, false},
		{"trusts", systemContainer + base, below(systemContainer, "(objectClass=trustedDomain)"), c.Trusts, false},
	}
}

// collect reads the parts of the domain. Parts that the account cannot read, or of which the
// server lacks attributes, are listed in the asset and cause no error.
func (r *reader) collect(ctx context.Context, s *session, c *identity.Collector, base string) error {
	c.SetForestLevel(s.RootDSE.ForestLevel)
	if s.RootDSE.ForestLevel == "" {
		c.AddUnreadable("forestFunctionalLevel")
	}
	for _, part := range domainParts(c, base, s.RootDSE) {
		if _, err := r.collectPart(ctx, s, c, part); err != nil {
			return err
		}
	}
	if err := collectLAPS(ctx, s, c); err != nil || r.descriptors == nil {
		return err
	}
	return r.descriptors.collect(ctx, s, c)
}

// collectLAPS reads which versions of LAPS have attributes in the schema.
func collectLAPS(ctx context.Context, s *session, c *identity.Collector) error {
	if err := s.reconnectIfIdle(ctx); err != nil {
		return err
	}
	known, readable, err := s.SchemaAttributes(ctx, []string{identity.AttributeLegacyLAPS, identity.AttributeWindowsLAPS})
	s.lastUsed = time.Now()
	if err != nil {
		return err
	}
	if !readable {
		c.AddUnreadable("lapsSchema")
		return nil
	}
	c.SetLAPS(known[strings.ToLower(identity.AttributeLegacyLAPS)], known[strings.ToLower(identity.AttributeWindowsLAPS)])
	return nil
}

// collectPart reads a part of the domain and reports whether it is readable. If it is not, the domain's
// asset lists it.
func (r *reader) collectPart(ctx context.Context, s *session, c *identity.Collector, part domainPart) (readable bool, err error) {
	if !s.lacksAny(part.part.Attributes) {
		if readable, err = r.readPart(ctx, s, c, part); err != nil {
			return false, err
		}
	}
	if !readable {
		c.AddUnreadable(part.name)
	}
	return readable, nil
}

func (r *reader) readPart(ctx context.Context, s *session, c *identity.Collector, part domainPart) (readable bool, err error) {
	readable = true
	if part.container != "" {
		if readable, err = isReadable(ctx, s, part.container); err != nil {
			return false, err
		}
	}
	found := 0
	part.search.Attributes, part.search.ExtendedDN = part.part.Attributes, true
	part.search.Descriptors = r.descriptors.requested() && slices.Contains(part.part.Attributes, ad.AttributeDescriptor)
	err = s.searchOnce(ctx, part.search, func(entry *ad.Entry) error {
		if part.part.Add(entry, r.snapshot.DirectoryNow) {
			found++
		} else {
			readable = false // the entry is visible, but none of its attributes is readable
		}
		if part.part == c.Controllers && r.descriptors != nil {
			r.descriptors.addParents(entry.DN)
			r.descriptors.note(r.log, identity.Domain, ad.GUID{}, entry.DN, entry.First(slices.Index(part.part.Attributes, ad.AttributeDescriptor)))
		}
		return nil
	})
	if err != nil && fault.ClassOf(err) != fault.Refused {
		return false, err
	}
	return err == nil && readable && (found > 0 || !part.required), nil
}

// isReadable reports whether the account can read the attributes of a container.
func isReadable(ctx context.Context, s *session, container string) (readable bool, err error) {
	search := directory.Search{Base: container, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{"objectClass"}}
	err = s.searchOnce(ctx, search, func(entry *ad.Entry) error {
		readable = len(entry.First(0)) > 0
		return nil
	})
	if fault.ClassOf(err) == fault.Refused {
		return false, nil
	}
	return readable, err
}
