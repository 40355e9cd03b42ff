package syncrun

import (
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// search is how the objects of one kind are found and mapped.
type search struct {
	kind   identity.Kind
	filter string // the operator's; "": none
	mapper *identity.Mapper
	// anywhere in the domain, whatever the profile's base is
	anywhere bool
}

// filterOn narrows the kind's own filter by the operator's. A server that is no
// domain controller need not have the attributes of the kind's own filter: there
// the operator's stands alone.
func (s search) filterOn(root directory.RootDSE) string {
	own := identity.Filter[s.kind]
	switch {
	case s.filter == "":
		return own
	case root.IsDomainController():
		return "(&" + own + s.filter + ")"
	default:
		return s.filter
	}
}

// Filter is what a run finds the objects of one kind by, on such a server.
func (s Search) Filter(kind identity.Kind, root directory.RootDSE) string {
	filter := s.UserFilter
	if kind == identity.Group {
		filter = s.GroupFilter
	}
	return search{kind: kind, filter: filter}.filterOn(root)
}
