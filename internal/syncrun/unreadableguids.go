package syncrun

import (
	"context"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
)

// An entry whose objectGUID is unreadable may be any object of the index, so its presence would
// make each deletion by absence doubtful. The extended DN of the entry contains its identifiers
// nevertheless. They prove that the object exists. The entry itself is not sent.

// guidOf returns the GUID of an entry's asset. It works for entries that cannot be mapped, too. If
// the attribute is unreadable, the GUID comes from the entry's extended DN.
func (q query) guidOf(entry *ad.Entry) (ad.GUID, bool) {
	if guid, ok := q.mapper.GUID(entry); ok {
		return guid, true
	}
	var dn ad.ExtendedDN
	if !dn.Parse(entry.ExtendedDN) {
		return ad.GUID{}, false
	}
	if q.kind == identity.Role {
		return identity.RoleGUID(dn.GUID), true
	}
	return dn.GUID, true
}

// identifyByExtendedDN searches the entries whose GUIDs are unreadable again, if the server offers
// extended DNs. It returns the result with their objects as seen.
func (r *reader) identifyByExtendedDN(ctx context.Context, result readResult) (readResult, error) {
	if !r.session.RootDSE.ExtendedDN {
		return result, nil
	}
	for _, q := range r.queries {
		count := result.counters[q.kind].withoutGUID
		if count == 0 {
			continue
		}
		guids, err := r.searchWithoutGUID(ctx, q, count)
		if err != nil {
			return result, err
		}
		result.add(readResult{
			counters: map[identity.Kind]counters{q.kind: {withoutGUID: -min(count, len(guids))}}, seen: [][]ad.GUID{guids},
		})
		r.log.Info().Stringer("kind", q.kind).Int("objects", len(guids)).Msg(MsgEntriesIdentified)
	}
	return result, nil
}

// searchWithoutGUID returns the GUIDs of the entries of a query whose objectGUID is unreadable. The
// first search finds few entries. Samba does not evaluate this filter by the rights of the
// account (seen in 4.17), so a search without it follows if entries are missing.
func (r *reader) searchWithoutGUID(ctx context.Context, q query, count int) (guids []ad.GUID, err error) {
	search := directory.Search{Attributes: []string{"objectGUID"}, ExtendedDN: true}
	search.Base, search.Scope = r.scopeOf(q.wholeDomain)
	for _, search.Filter = range []string{"(&" + q.filter + "(|(!(objectGUID=*))(!(objectSid=*))))", q.filter} {
		guids = nil
		var dn ad.ExtendedDN
		err := r.session.searchOnce(ctx, search, func(entry *ad.Entry) error {
			if _, readable := ad.ParseGUID(entry.First(0)); !readable && dn.Parse(entry.ExtendedDN) {
				guids = append(guids, dn.GUID)
			}
			return nil
		})
		if err != nil || len(guids) >= count {
			return guids, baseContextError(err)
		}
	}
	return guids, nil
}
