package directory

import (
	"context"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

// Exists reports whether a search finds an entry. The request has a size limit of one entry,
// without paging and without attributes. The result sizeLimitExceeded with an entry means that
// there are more.
func (s *Session) Exists(ctx context.Context, q Search) (found bool, err error) {
	if err := CheckFilter(q.Filter); err != nil {
		return false, fault.Operation{Object: "search filter " + q.Filter}.Failed(fault.Refused, err, filterSettings)
	}
	operation := s.operation("search", q.Base)
	const noAttributes = "1.1" // RFC 4511 4.5.1.8
	request := ldap.NewSearchRequest(q.Base, int(q.Scope), ldap.NeverDerefAliases, 1, 0, false, q.Filter, []string{noAttributes}, s.controls(q))
	err = s.call(ctx, "search", operation, func() error {
		result, err := s.conn.Search(request)
		found = result != nil && len(result.Entries) > 0
		if found && isAny(err, ldap.LDAPResultSizeLimitExceeded) {
			return nil
		}
		return err
	})
	return found && err == nil, searchError(operation, err)
}
