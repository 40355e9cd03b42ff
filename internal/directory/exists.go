package directory

import (
	"context"
	"fmt"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

// Exists reports whether a search finds an entry. It requests no attributes.
func (s *Session) Exists(ctx context.Context, q Search) (found bool, err error) {
	n, err := s.Count(ctx, q, 1)
	return n > 0, err
}

// Count returns how many entries a search finds, up to a limit. It requests no attributes.
//
// The request has the limit as its size limit: the result sizeLimitExceeded with entries means
// that there are more. Samba ignores the size limit, so the request also has a page size of as many
// entries. Other servers ignore paging then (RFC 2696 3). Nothing requests the rest of the pages: a
// server keeps the last few such searches, at most until the session ends.
func (s *Session) Count(ctx context.Context, q Search, limit int) (n int, err error) {
	if err := CheckFilter(q.Filter); err != nil {
		return 0, fault.Operation{Object: "search filter " + q.Filter}.Failed(fault.Refused, err, filterSettings)
	}
	operation := s.operation("search", q.Base)
	var cookie []byte
	for range maxPagesWithoutNew {
		var found int
		found, cookie, err = s.countPage(ctx, operation, q, limit, cookie)
		if err != nil {
			return 0, searchError(operation, err)
		}
		if n += found; n >= limit || len(cookie) == 0 {
			return min(n, limit), nil
		}
	}
	return 0, operation.Failed(fault.Incomplete, fmt.Errorf("%w in %d consecutive pages", errNoNewEntries, maxPagesWithoutNew), serverRemedy)
}

// countPage requests one page of Count. With fewer entries, a cookie means that the server has not
// evaluated all entries yet.
func (s *Session) countPage(ctx context.Context, o fault.Operation, q Search, limit int, cookie []byte) (found int, next []byte, err error) {
	const noAttributes = "1.1" // RFC 4511 4.5.1.8
	request := ldap.NewSearchRequest(q.Base, int(q.Scope), ldap.NeverDerefAliases, limit, 0, false, q.Filter, []string{noAttributes}, s.pageControls(q, limit, cookie))
	err = s.call(ctx, "search", o, func() error {
		result, err := s.conn.Search(request)
		if result == nil {
			return err
		}
		found = len(result.Entries)
		if found >= limit && isAny(err, ldap.LDAPResultSizeLimitExceeded) {
			return nil
		}
		if paging, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging); ok {
			next = paging.Cookie
		}
		return err
	})
	return found, next, err
}
