package gateway

// The messages of the log.
const (
	MsgBatchHalved      = "batch not completed twice, sending smaller batches"
	MsgCallRefused      = "too many concurrent calls, sending again"
	MsgLimitNotRecorded = "gateway limit not recorded"
	MsgRateLimited      = "rate limited by gateway"
	MsgResponse         = "gateway response received"
	MsgRetrying         = "gateway request failed, retrying"
	MsgWorkersRaised    = "concurrency limit of gateway not hit, workers raised"
	MsgWorkersReduced   = "too many concurrent calls, workers reduced"
)
