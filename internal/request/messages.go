package request

// The messages of the log. Everything else is in the fields of a line.
const (
	MsgCopyReceived      = "copy of state file requested"
	MsgIgnored           = "run request ignored"
	MsgOutcomeNotWritten = "outcome of requested run not written"
	MsgReceived          = "run requested"
	MsgRefused           = "run request refused"
)
