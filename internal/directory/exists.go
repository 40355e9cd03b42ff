package directory

import (
	"context"
	"fmt"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

// Exists reports whether a search finds an entry. It requests no attributes.
//
// The request has a size limit of one entry: the result sizeLimitExceeded with an entry means
// that there are more. Samba ignores the size limit, so the request also has a page size of one
// entry. Other servers ignore paging then (RFC 2696 3). Nothing requests the rest of the pages: a
// server keeps the last few such searches, at most until the session ends.
func (s *Session) Exists(ctx context.Context, q Search) (found bool, err error) {
	if err := CheckFilter(q.Filter); err != nil {
		return false, fault.Operation{Object: "search filter " + q.Filter}.Failed(fault.Refused, err, filterSettings)
	}
	operation := s.operation("search", q.Base)
	var cookie []byte
	for range maxPagesWithoutNew {
		found, cookie, err = s.findOne(ctx, operation, q, cookie)
		if err != nil {
			return false, searchError(operation, err)
		}
		if found || len(cookie) == 0 {
			return found, nil
		}
	}
	return false, operation.Failed(fault.Incomplete, fmt.Errorf("%w in %d consecutive pages", errNoNewEntries, maxPagesWithoutNew), serverRemedy)
}

// findOne requests one page of Exists. Without an entry, a cookie means that the server has not
// evaluated all entries yet.
func (s *Session) findOne(ctx context.Context, o fault.Operation, q Search, cookie []byte) (found bool, next []byte, err error) {
	const noAttributes = "1.1" // RFC 4511 4.5.1.8
	request := ldap.NewSearchRequest(q.Base, int(q.Scope), ldap.NeverDerefAliases, 1, 0, false, q.Filter, []string{noAttributes}, s.pageControls(q, 1, cookie))
	err = s.call(ctx, "search", o, func() error {
		result, err := s.conn.Search(request)
		if result == nil {
			return err
		}
		found = len(result.Entries) > 0
		if found && isAny(err, ldap.LDAPResultSizeLimitExceeded) {
			return nil
		}
		if paging, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging); ok {
			next = paging.Cookie
		}
		return err
	})
	return found, next, err
}
