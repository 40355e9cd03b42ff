package syncrun

import (
	"context"
	"fmt"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// domainBase is where the domain begins; on a server that is no domain controller
// where the profile does.
func (p *pass) domainBase() string {
	if base := p.session.RootDSE.DefaultNamingContext; base != "" {
		return base
	}
	return p.source.Base
}

// readDomain reads the domain's own entry and what belongs to it, in every run.
func (p *pass) readDomain(ctx context.Context, add addFunc) error {
	base := p.session.RootDSE.DefaultNamingContext
	if base == "" { // a server that has no domain
		return nil
	}
	if err := p.line.renew(ctx, p.patience); err != nil {
		return err
	}
	c := identity.NewCollector()
	if err := p.collect(ctx, c, base); err != nil {
		return err
	}
	r := p.posture.domain
	query := directory.Search{Base: base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: r.mapper.Attributes, ExtendedDN: true}
	_, err := p.line.Search(ctx, query, func(entry *ad.Entry) error {
		asset, err := r.mapper.MapDomain(nil, entry, c, p.now)
		if err != nil {
			p.skip(r, entry, err)
			return nil
		}
		_, err = p.take(asset, r.tally, add)
		return err
	})
	return err
}

// collect reads what stands elsewhere than in the domain's own entry. What the
// account may not read there is named in the asset, and stops nothing.
func (p *pass) collect(ctx context.Context, c *identity.Collector, base string) error {
	root := p.session.RootDSE
	c.ForestLevel(root.ForestLevel)
	if root.ForestLevel == "" {
		c.Unreadable("forestFunctionalLevel")
	}
	const system = "CN=System,"
	const policies = "CN=Password Settings Container,CN=System,"
	const recycleBin = "CN=Recycle Bin Feature,CN=Optional Features,CN=Directory Service,CN=Windows NT,CN=Services,"
	for _, part := range []struct {
		name      string
		container string // that must be there and readable, or nothing is proven by finding nothing
		query     directory.Search
		part      *identity.Part
		one       bool // there must be one
	}{
		{"krbtgtPasswordLastChangedAt", "", directory.Search{Base: base, Scope: directory.Subtree, Filter: "(&(objectClass=user)(sAMAccountName=krbtgt))"}, c.Krbtgt, true},
		{"recycleBin", "", directory.Search{Base: recycleBin + root.ConfigurationContext, Scope: directory.Base, Filter: "(objectClass=*)"}, c.RecycleBin, true},
		{"fineGrainedPasswordPolicies", policies + base, directory.Search{Base: policies + base, Scope: directory.OneLevel, Filter: "(objectClass=msDS-PasswordSettings)"}, c.Policies, false},
		{"trusts", system + base, directory.Search{Base: system + base, Scope: directory.OneLevel, Filter: "(objectClass=trustedDomain)"}, c.Trusts, false},
		{"domainControllers", "", directory.Search{Base: base, Scope: directory.Subtree, Filter: "(&(objectClass=computer)(|(primaryGroupID=516)(primaryGroupID=521)))"}, c.Controllers, true},
	} {
		readable := true
		if part.container != "" {
			var err error
			if readable, err = p.isReadable(ctx, part.container); err != nil {
				return err
			}
		}
		found := 0
		part.query.Attributes, part.query.ExtendedDN = part.part.Attributes, true
		_, err := p.line.Search(ctx, part.query, func(entry *ad.Entry) error {
			if part.part.Add(entry, p.now) {
				found++
			} else {
				readable = false // it can be seen, and nothing of it read
			}
			return nil
		})
		switch {
		case fault.Of(err) == fault.Refused:
			readable = false
		case err != nil:
			return fmt.Errorf("read the domain's %s: %w", part.name, err)
		}
		if !readable || part.one && found == 0 {
			c.Unreadable(part.name)
		}
	}
	return nil
}

// isReadable reports whether a container shows itself to the account, with what it is.
func (p *pass) isReadable(ctx context.Context, container string) (bool, error) {
	readable := false
	query := directory.Search{Base: container, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{"objectClass"}}
	_, err := p.line.Search(ctx, query, func(entry *ad.Entry) error {
		readable = len(entry.First(0)) > 0
		return nil
	})
	if fault.Of(err) == fault.Refused {
		return false, nil
	}
	return readable, err
}
