package faults

// The log messages that the tests wait for.
const (
	msgDirectoryConnected  = "directory connected"
	msgPassPlanned         = "pass planned"
	msgDirectoryRead       = "directory read"
	msgSearchRestarted     = "the directory has given up a search that the gateway held up: it begins anew"
	msgBatchesAcknowledged = "batches acknowledged"
	msgConnectorState      = "connector state"
	msgStateNotSent        = "connector state not sent"
	msgStateSentLate       = "connector state sent late"
	msgRunFinished         = "run finished"
	msgTicksMissed         = "ticks fell into a run and are not made up for"
	msgRateLimited         = "rate limited by the gateway"
	msgLimitRemembered     = "the gateway has set a rate limit before, calls wait for its end"
	msgCallRepeated        = "gateway call will be repeated"
)
