package cli

// The messages of the log. Everything else is in the fields of a line.
const (
	MsgBadConfiguration   = "bad configuration"
	MsgBadUsage           = "bad usage"
	MsgCommandFailed      = "command failed"
	MsgGenerationInvalid  = "generation file invalid, restored copies not detected"
	MsgGraceExceeded      = "shutdown grace exceeded"
	MsgHangupIgnored      = "hangup ignored, settings are not reloaded"
	MsgLevelChanged       = "log level changed"
	MsgLibraryMessage     = "message of a library suppressed"
	MsgMistake            = "value probably contains a mistake"
	MsgRateLimitRestored  = "rate limit of previous process still active"
	MsgRegistrationFailed = "registration failed"
	MsgRunsSkipped        = "scheduled runs skipped, previous run still active"
	MsgScheduleUnusual    = "cron expression probably not as intended"
	MsgStackDump          = "signal received, stack dump follows"
	MsgStarted            = "started"
	MsgStateDirShared     = "state directory writable by others"
	MsgStateFileNotClosed = "state file not closed"
	MsgStateFileSetAside  = "damaged state file set aside, resending everything"
	MsgStateFileRestored  = "state file restored from a copy, resending everything"
	MsgStateNotRecorded   = "state not recorded"
	MsgStopped            = "stopped"
	MsgStopping           = "stopping"
	MsgUnknownKey         = "unknown key ignored"
	MsgWorkersRestored    = "concurrency limit of previous process restored"
)
