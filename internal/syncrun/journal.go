package syncrun

import (
	"github.com/rs/zerolog"

	"adconnector/internal/state"
)

// journal records batches and their results, and counts the outcomes.
type journal struct {
	*state.Journal
	log      zerolog.Logger
	progress *Progress
	outcomes map[Outcome]int
	rejected int // objects rejected so far in this run
}

// Commit records the results of batches. It runs concurrently with the reading. An object
// counts as delivered only after Commit.
func (j *journal) Commit(results []state.BatchResult) error {
	if err := j.Journal.Commit(results); err != nil {
		return err
	}
	accepted, rejected := 0, 0
	for _, result := range results {
		for _, object := range result.Acknowledged {
			outcome := "accepted"
			if object.Deleted {
				outcome = "deleted"
			} else {
				j.progress.addUploaded()
			}
			j.outcomes[Outcome{object.Kind, outcome}]++
		}
		for _, r := range result.Rejected {
			j.outcomes[Outcome{r.Object.Kind, "rejected"}]++
			j.logRejection(r)
		}
		accepted += len(result.Acknowledged)
		rejected += len(result.Rejected)
	}
	j.progress.addAcknowledged(accepted + rejected)
	j.log.Info().Int("batch", len(results)).Int("objects", accepted).Int("rejected", rejected).Msg(MsgBatchesAcknowledged)
	return nil
}

// logRejection logs the first rejected objects of a run. The gateway's reason may contain
// attribute values, so it appears only in the status and at the debug level.
func (j *journal) logRejection(r state.RejectedObject) {
	if j.rejected++; j.rejected <= maxLoggedObjects {
		j.log.Warn().Stringer("kind", r.Object.Kind).Stringer("sid", r.Object.SID).Stringer("guid", r.Object.GUID).
			Str("remedy", state.RejectedRemedy).Msg(MsgObjectRejected)
	}
	if r.Reason != "" {
		j.log.Debug().Stringer("sid", r.Object.SID).Str("reason", r.Reason).Msg(MsgRejectionReason)
	}
}
