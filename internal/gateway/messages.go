package gateway

// Log messages.
const (
	MsgAnswered    = "gateway answered"
	MsgRateLimited = "rate limited by the gateway"
	MsgRetrying    = "gateway call will be repeated"
)
