package syncrun

import (
	"github.com/rs/zerolog"

	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// undecidedGroup contains the objects whose deletion a run cannot decide for one reason.
type undecidedGroup struct {
	Reason  state.UndecidedReason
	Remedy  string
	Objects []identity.Object
}

// logUndecided logs a warning for each group, and its first objects. In a dry run it passes
// all objects to show instead of logging any.
func logUndecided(log zerolog.Logger, show func(identity.Object, state.UndecidedReason), groups []undecidedGroup) {
	logged := 0
	for _, group := range groups {
		if len(group.Objects) == 0 {
			continue
		}
		log.Warn().Int("undecided", len(group.Objects)).Str("reason", string(group.Reason)).Str("remedy", group.Remedy).Msg(MsgDeletionsUndecided)
		for _, object := range group.Objects {
			switch {
			case show != nil:
				show(object, group.Reason)
			case logged < maxLoggedObjects:
				logged++
				log.Warn().Stringer("kind", object.Kind).Stringer("sid", object.SID).Stringer("guid", object.GUID).
					Str("reason", string(group.Reason)).Msg(MsgDeletionUndecided)
			}
		}
	}
}
