package check

import (
	"context"
	"fmt"
	"strings"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/syncrun"
)

// descriptorSample counts the objects whose security descriptor is readable, and those whose is not.
type descriptorSample struct {
	readable   int
	unreadable []string // DNs
	// protected and inheriting are whether there are unreadable objects that AdminSDHolder protects,
	// including itself, and others.
	protected, inheriting bool
}

func (s *descriptorSample) add(dn string, descriptor []byte, protected bool) {
	if len(descriptor) > 0 {
		s.readable++
		return
	}
	s.unreadable = append(s.unreadable, dn)
	s.protected, s.inheriting = s.protected || protected, s.inheriting || !protected
}

// names returns the first DNs.
func (s *descriptorSample) names() string {
	text := strings.Join(s.unreadable[:min(len(s.unreadable), maxNamed)], "; ")
	if more := len(s.unreadable) - maxNamed; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// readPermissions checks that the account can read the security descriptors of the domain, AdminSDHolder,
// and the groups of roles. Those of other privileged objects require the memberships of a run.
func (p *preflight) readPermissions(ctx context.Context) Check {
	switch {
	case p.session == nil:
		return skipped("not bound")
	case p.profile == nil:
		return skipped("no profile")
	case !p.profile.Posture:
		return ok("not needed: security posture is not configured")
	}
	root := p.session.RootDSE
	if !root.IsDomainController() || !root.Descriptors || root.DefaultNamingContext == "" {
		return ok("not checked: the server does not offer security descriptors")
	}
	sample, err := p.sampleDescriptors(ctx, root.DefaultNamingContext)
	if err != nil && fault.ClassOf(err) != fault.Refused {
		p.reconnect(ctx) // a session cannot be used after an error
		return failed(asTransient(ctx, err), "try again")
	}
	return sample.judge(root.DefaultNamingContext, p.bound.name, err)
}

// judge returns the result of the check. refused is the error of a server that refuses to return security
// descriptors.
func (s *descriptorSample) judge(domain, account string, refused error) Check {
	switch {
	case refused != nil:
		return warn(refused.Error()+": controlledBy will be missing", syncrun.RefusedDescriptorsRemedy)
	case len(s.unreadable) == 0:
		return ok("the security descriptors of %d objects are readable: the domain, AdminSDHolder, and the groups of roles", s.readable)
	}
	var commands []string
	if s.protected {
		commands = append(commands, directory.GrantProtectedCommand(domain, account, directory.ReadPermissions))
	}
	if s.inheriting {
		commands = append(commands, directory.GrantCommand(domain, account, directory.ReadPermissions))
	}
	return warn(fmt.Sprintf("%s of %d of %d objects is not readable, so that controlledBy will be missing: %s",
		ad.AttributeDescriptor, len(s.unreadable), len(s.unreadable)+s.readable, s.names()), syncrun.ReadPermissionsRemedy(commands...))
}

// sampleDescriptors reads the security descriptors of the domain, AdminSDHolder, and the groups of roles.
func (p *preflight) sampleDescriptors(ctx context.Context, domain string) (sample descriptorSample, err error) {
	var sid ad.SID
	search := func(base string, scope directory.Scope, filter string, each func(entry *ad.Entry)) error {
		_, err := p.session.Search(ctx, directory.Search{
			Base: base, Scope: scope, Filter: filter, Attributes: []string{ad.AttributeDescriptor, "objectSid", "adminCount"}, Descriptors: true,
		}, func(entry *ad.Entry) error {
			each(entry)
			return nil
		})
		return err
	}
	err = search(domain, directory.Base, "(objectClass=*)", func(entry *ad.Entry) {
		parsed, _ := ad.ParseSID(entry.First(1))
		sid = append(sid, parsed...)
		sample.add(domain, entry.First(0), false)
	})
	if err != nil {
		return sample, err
	}
	holder, found := directory.AdminSDHolder(domain), false
	err = search(holder, directory.Base, "(objectClass=*)", func(entry *ad.Entry) {
		found = true
		sample.add(holder, entry.First(0), true)
	})
	if err != nil && fault.ClassOf(err) != fault.Refused {
		return sample, err
	}
	if !found { // every domain has one: the account cannot list it
		sample.add(holder, nil, true)
	}
	err = search(domain, directory.Subtree, identity.RoleFilter(sid), func(entry *ad.Entry) {
		count := string(entry.First(2))
		sample.add(string(entry.DN), entry.First(0), count != "" && count != "0")
	})
	return sample, err
}
