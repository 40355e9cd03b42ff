package syncrun

import "adconnector/internal/state"

// The messages of the log.
const (
	MsgBatchesAcknowledged    = "batches acknowledged"
	MsgConnectorState         = "connector state"
	MsgControllersUnreadable  = "domain controllers unreadable, undecided deletions not released"
	MsgDeletedUnreadable      = "deleted objects unreadable, only full syncs find deletions"
	MsgDeletionHeld           = "deletion held"
	MsgDeletionsHeld          = "deletions held"
	MsgDeletionUndecided      = "deletion undecided"
	MsgDeletionsUndecided     = "deletions undecided"
	MsgDirectoryRequest       = "directory request completed"
	MsgDirectoryConnected     = "directory connected"
	MsgDirectoryRead          = "directory read"
	MsgEntrySkipped           = "entry skipped"
	MsgExpiringGroupsSkipped  = "large role groups, expiries found by full syncs"
	MsgFilterUntracked        = "filter on computed attributes, delta syncs miss changes"
	MsgHiddenIdentified       = "entries without readable objectGUID identified"
	MsgInvocationIDUnreadable = "invocation ID unreadable, falling back to full sync"
	MsgLDS                    = "directory is AD LDS, domain attributes missing"
	MsgMembersUnidentified    = "group members lack identifiers, memberships omitted"
	MsgMembershipsRead        = "memberships read"
	MsgMembershipsUnreadable  = "stored memberships unreadable, reading them again"
	MsgObjectUnreadable       = "object unreadable, not deleted"
	MsgObjectRejected         = "object rejected"
	MsgObjectsUnreadable      = "objects unreadable, values at the gateway kept"
	MsgPostureDisabled        = "security posture disabled, deleting its objects"
	MsgRechecksPostponed      = "rechecks postponed to the next run"
	MsgReadOnlyController     = "read-only domain controller, filtered attributes missing"
	MsgRejectionReason        = "rejection reason"
	MsgRunFinished            = "run finished"
	MsgRunInProgress          = "run in progress"
	MsgSearchRestarted        = "directory search lost during gateway backpressure, restarting"
	MsgSearchStarted          = "directory search started"
	MsgSecondSessionFailed    = "second directory session failed, reading sequentially"
	MsgStateNotSent           = "connector state not sent"
	MsgStateSentLate          = "connector state sent late"
	MsgStatesUnsupported      = "connector states unsupported by gateway"
	MsgSyncPlanned            = "sync planned"
	MsgTombstonesHidden       = "tombstones without readable uSNChanged found"
	MsgTargetChanged          = "delivery target changed, sending everything again"
)

// The reasons for undecided deletions.
const (
	UndecidedHiddenGUID   state.UndecidedReason = "entries without objectGUID"
	UndecidedInvocationID state.UndecidedReason = "invocation ID unreadable"
	UndecidedNotShown     state.UndecidedReason = "not shown by this domain controller"
	UndecidedOutside      state.UndecidedReason = "outside of the scope on this domain controller"
	UndecidedRollback     state.UndecidedReason = "highestCommittedUSN decreased"
	UndecidedScope        state.UndecidedReason = "sync scope changed"
)

// The reasons for a full sync: the field reason of [MsgSyncPlanned].
const (
	ReasonAffected         = "too many objects affected by changed memberships"
	ReasonClock            = "directory clock set back"
	ReasonDeltaUnsupported = "delta sync unsupported by directory server"
	ReasonFullInterval     = "last full sync too old"
	ReasonMemberships      = "memberships not stored"
	ReasonNewController    = "domain controller new or restored"
	ReasonNewTarget        = "nothing delivered to this target yet"
	ReasonOtherViews       = "too many objects sent under another view"
	ReasonRelease          = "release of deletions requires proof"
	ReasonResend           = "resend of all objects requested"
	ReasonRestored         = "state file restored from a copy"
	ReasonRequested        = "requested"
	ReasonScope            = "sync scope changed"
	ReasonUSN              = "highestCommittedUSN decreased"
	ReasonWatermark        = "watermark too old"
)
