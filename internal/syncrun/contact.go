package syncrun

import (
	"cmp"
	"errors"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// contact is which directory servers a run reached. Only Runner.openDirectory writes it.
type contact struct {
	controller string // that was read, "" without one
	unreached  []state.UnreachedServer
}

// connected records the server of the first session.
func (c *contact) connected(s *session) {
	c.controller = cmp.Or(s.RootDSE.DNSHostName, s.Address)
	c.addUnreached(s.Unreached)
}

// notConnected records the error of a run that reached no server.
func (c *contact) notConnected(err error) { c.addUnreached(directory.ServerErrors(err)) }

// addUnreached adds the servers of the errors. A server that refused the bind was reached.
func (c *contact) addUnreached(errs []error) {
	for _, err := range errs {
		failed, is := errors.AsType[*fault.Error](err)
		if !is || errors.Is(err, directory.ErrBindRefused) || failed.Class == fault.Canceled || len(c.unreached) == state.MaxUnreached {
			continue
		}
		c.unreached = append(c.unreached, state.UnreachedServer{Server: failed.Object, Error: err.Error(), Remedy: fault.Remedy(err)})
	}
}
