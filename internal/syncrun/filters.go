package syncrun

import (
	"slices"
	"strings"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// UntrackedFilter is a configured filter whose result can change for an object while the
// object's uSNChanged does not. Delta syncs then find neither the objects that begin to match
// nor those that no longer do.
type UntrackedFilter struct {
	Setting    string
	Attributes []string // that cause this, without duplicates
}

// UntrackedRemedy is what to do about an UntrackedFilter.
const UntrackedRemedy = "only full syncs find the objects that begin or cease to match: " +
	"to find them earlier, reduce sync.full-interval, or use a filter on stored attributes"

// String returns a description of the cause.
func (f UntrackedFilter) String() string {
	return f.Setting + " names " + strings.Join(f.Attributes, ", ") + ", which can change without a change of the object itself"
}

// UntrackedFilters returns the configured filters that delta syncs cannot follow.
func (s SearchOptions) UntrackedFilters() (filters []UntrackedFilter) {
	for _, kind := range []identity.Kind{identity.User, identity.Group} {
		if attributes := untrackedAttributes(s.configuredFilter(kind)); len(attributes) > 0 {
			filters = append(filters, UntrackedFilter{Setting: "ldap." + kind.String() + "-filter", Attributes: attributes})
		}
	}
	return filters
}

// untrackedAttributes returns the attributes of a filter whose values change without the object.
// With the rule that follows links of links, that applies to any attribute: the links of
// other objects count too. A filter with invalid syntax fails the search.
func untrackedAttributes(filter string) (attributes []string) {
	assertions, _ := directory.FilterAssertions(filter)
	for _, a := range assertions {
		known := slices.ContainsFunc(attributes, func(name string) bool { return strings.EqualFold(name, a.Attribute) })
		if !known && (ad.IsUntracked(a.Attribute) || a.Rule == ad.MatchingRuleInChain) {
			attributes = append(attributes, a.Attribute)
		}
	}
	return attributes
}

// warnUntrackedFilters logs, once per process, the filters that delta syncs cannot follow. On
// a server without delta syncs, every run finds everything.
func (r *Runner) warnUntrackedFilters(info runInfo, s Snapshot) {
	if r.warnedFilters || !s.DeltaSupported {
		return
	}
	r.warnedFilters = true
	for _, filter := range r.Search.UntrackedFilters() {
		info.log.Warn().Str("key", filter.Setting).Str("reason", filter.String()).Str("remedy", UntrackedRemedy).Msg(MsgFilterUntracked)
	}
}
