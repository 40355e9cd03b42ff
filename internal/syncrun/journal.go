package syncrun

import (
	"github.com/rs/zerolog"

	"adconnector/internal/state"
)

// journal records what is sent and what became of it, and counts outcomes.
type journal struct {
	*state.Journal
	log      zerolog.Logger
	progress *Progress
	outcomes map[Outcome]int
	rejected int // in this run, so far
}

// Commit records answers, concurrently with the reading. Only from here on does an object
// count as delivered.
func (j *journal) Commit(receipts []state.BatchResult) error {
	if err := j.Journal.Commit(receipts); err != nil {
		return err
	}
	delivered, rejected := 0, 0
	for _, receipt := range receipts {
		for _, object := range receipt.Acknowledged {
			what := "delivered"
			if object.Deleted {
				what = "deleted"
			}
			j.outcomes[Outcome{object.Kind, what}]++
		}
		for _, r := range receipt.Rejected {
			j.outcomes[Outcome{r.Object.Kind, "rejected"}]++
			j.logRejection(r)
		}
		delivered += len(receipt.Acknowledged)
		rejected += len(receipt.Rejected)
	}
	j.progress.settle(delivered + rejected)
	j.log.Info().Int("batch", len(receipts)).Int("objects", delivered).Int("rejected", rejected).Msg(MsgBatchesAcknowledged)
	return nil
}

// logRejection names the first objects that are rejected in a run. The gateway's reason may
// repeat what the directory holds: only status and the debug level have it.
func (j *journal) logRejection(r state.RejectedObject) {
	if j.rejected++; j.rejected <= listed {
		j.log.Warn().Stringer("kind", r.Object.Kind).Stringer("sid", r.Object.SID).Stringer("guid", r.Object.GUID).
			Str("remedy", "see the gateway's reason in adconnector status").Msg(MsgObjectRejected)
	}
	if r.Reason != "" {
		j.log.Debug().Stringer("sid", r.Object.SID).Str("reason", r.Reason).Msg(MsgRejectionReason)
	}
}
