package status

// Messages that this package logs.
const (
	MsgAdminListening   = "admin endpoint listening"
	MsgAdminUnavailable = "admin endpoint unavailable, retrying"
	MsgAdminFailed      = "admin endpoint failed"
	MsgScrapeFailed     = "metrics scrape failed"
)
