package syncrun

import "adconnector/internal/state"

// requestResend records that every object must be sent again, if the operator requested it.
// That precedes the first delivery: if the run fails, later runs send the rest.
func (r *Runner) requestResend(info runInfo) error {
	if !info.options.Resend || info.options.DryRun {
		return nil
	}
	return r.Store.ForgetFingerprints()
}

// pendingResend returns why every object must be sent again, or "".
func (r *Runner) pendingResend(info runInfo) (state.ResendCause, error) {
	if info.options.Resend { // a dry run does not record it
		return state.ResendRequested, nil
	}
	return r.Store.PendingResend()
}
