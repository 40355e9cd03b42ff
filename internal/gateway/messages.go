package gateway

// The messages of the log.
const (
	MsgAnswered         = "gateway request answered"
	MsgLimitNotRecorded = "rate limit not recorded"
	MsgRateLimited      = "rate limited by gateway"
	MsgRetrying         = "gateway request failed, retrying"
)
