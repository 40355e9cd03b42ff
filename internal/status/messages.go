package status

// The log messages.
const (
	MsgAdminListening   = "admin endpoint listening"
	MsgAdminUnavailable = "admin endpoint unavailable, retrying"
	MsgAdminFailed      = "admin endpoint failed"
	MsgHostRefused      = "request for unknown host name refused"
	MsgScrapeFailed     = "metrics scrape failed"
)
