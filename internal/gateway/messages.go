package gateway

// The messages of the log.
const (
	MsgLimitNotRecorded = "rate limit not recorded"
	MsgRateLimited      = "rate limited by gateway"
	MsgResponse         = "gateway response received"
	MsgRetrying         = "gateway request failed, retrying"
)
