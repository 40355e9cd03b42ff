package membership

// AdminSDHolder protects the members of some groups: the domain controllers replace their security
// descriptors and set adminCount (MS-ADTS 3.1.1.6.1.2). Members through distribution groups are
// protected, too, because a distribution group can become a security group.

// protectedRoles are the roles of these groups: those of Microsoft's list for Windows Server 2022
// ("Protected accounts and groups in Active Directory"). dSHeuristics may exclude some operators.
var protectedRoles = roleSetOf(
	"ADMINISTRATORS", "DOMAIN_ADMINS", "ENTERPRISE_ADMINS", "SCHEMA_ADMINS", "ACCOUNT_OPERATORS", "SERVER_OPERATORS", "PRINT_OPERATORS",
	"BACKUP_OPERATORS", "REPLICATOR", "DOMAIN_CONTROLLERS", "READ_ONLY_DOMAIN_CONTROLLERS", "KEY_ADMINS", "ENTERPRISE_KEY_ADMINS",
)

// protectedUsers is the role of the group that restricts how its members authenticate.
var protectedUsers = roleSetOf("PROTECTED_USERS")

// roleSetOf returns the roles with these names.
func roleSetOf(names ...string) (set roleSet) {
	for i, r := range roles {
		for _, name := range names {
			if r.name == name {
				set |= Role(i + 1).set()
			}
		}
	}
	return set
}

// propagateProtection marks the groups whose members AdminSDHolder protects, and those in groups with
// unreadable members, both through groups of any type.
func (g *Graph) propagateProtection() {
	var protecting, unreadable []Node
	for i := range g.groups {
		gr := &g.groups[i]
		gr.protects = gr.alive && gr.role.set()&protectedRoles != 0
		gr.protectionUnreadable = gr.alive && gr.unreadable
		if gr.protects {
			protecting = append(protecting, gr.node)
		}
		if gr.protectionUnreadable {
			unreadable = append(unreadable, gr.node)
		}
	}
	all := func(*group) bool { return true }
	g.markReachable(protecting, g.Members, all, func(gr *group) *bool { return &gr.protects })
	g.markReachable(unreadable, g.Members, all, func(gr *group) *bool { return &gr.protectionUnreadable })
	g.protectionUncertain, g.protectedUsersKnown = false, g.presentRoles&protectedUsers != 0
	for i := range g.groups {
		gr := &g.groups[i]
		if !gr.alive || !gr.unreadable {
			continue
		}
		g.protectionUncertain = g.protectionUncertain || gr.protects
		g.protectedUsersKnown = g.protectedUsersKnown && gr.effectiveRoles&protectedUsers == 0
	}
}

// IsProtected reports whether AdminSDHolder protects an object that is a member of these groups, and
// whether that is certain.
func (g *Graph) IsProtected(groupLists ...[]Node) (protected, certain bool) {
	return g.reaches(groupLists, !g.protectionUncertain, func(gr *group) (bool, bool) { return gr.protects, !gr.protectionUnreadable })
}

// InProtectedUsers reports whether an object that is a member of these groups is a member of Protected
// Users, also through security groups. It is not certain if there is no such group, which every domain
// has since Windows Server 2012 R2, or if it may have other members.
func (g *Graph) InProtectedUsers(groupLists ...[]Node) (in, certain bool) {
	return g.reaches(groupLists, g.protectedUsersKnown, func(gr *group) (bool, bool) {
		return gr.security && gr.effectiveRoles&protectedUsers != 0, !gr.inUnreadable
	})
}

// reaches reports whether one of the groups matches, and whether that is certain. othersKnown is whether
// it is certain if none does.
func (g *Graph) reaches(groupLists [][]Node, othersKnown bool, match func(*group) (matches, certain bool)) (found, certain bool) {
	for _, groups := range groupLists {
		for _, n := range groups {
			gr := g.aliveGroup(n)
			if gr == nil {
				continue
			}
			switch matches, certain := match(gr); {
			case matches && certain:
				return true, true
			case matches:
				found = true
			}
		}
	}
	return found, !found && othersKnown
}

// addProtection adds to the hash of a group what facts about its members depend on besides its roles.
// protectionUncertain is left out, because it concerns all accounts with adminCount, which the graph
// does not know: the next full sync finds it.
func (f *fingerprinter) addProtection(h uint64, gr *group) uint64 {
	known := gr.effectiveRoles&privileged != 0 && f.protectedUsersKnown
	return mix(h, bit(gr.protects)<<2|bit(gr.protectionUnreadable)<<1|bit(known))
}
