package status

// The log messages.
const (
	MsgAdminListening   = "admin endpoint listening"
	MsgAdminUnavailable = "admin endpoint unavailable, retrying"
	MsgAdminFailed      = "admin endpoint failed"
	MsgScrapeFailed     = "metrics scrape failed"
)
