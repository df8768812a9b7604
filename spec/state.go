package spec

// ServiceState is the observed state of a service: what rollout remembers between two
// steps. Rollout is its only writer; everybody else reads it to show it.
type ServiceState struct {
	ServiceID string        `json:"service_id"`
	Status    ServiceStatus `json:"status"`
	// ErrorMsg says why Status is failed or concerning.
	ErrorMsg string `json:"error_msg,omitempty"`
	// Progress of a deployment or upgrade, 0–100.
	Progress int `json:"progress"`
	// Ready and Total instances, of the wanted ones.
	Ready int `json:"ready"`
	Total int `json:"total"`

	// Serial is the number of the last instance; ids of instances are never used twice.
	Serial int64 `json:"serial"`
	// Generation of the service that Target was taken from.
	Generation int64 `json:"generation"`
	// Target is what instances are being made for; Active is the last target that was
	// completely ready, and what a rollback goes back to. Equal when nothing is under way.
	Target []Entry `json:"target,omitempty"`
	Active []Entry `json:"active,omitempty"`
	// Superseded targets that still have instances, oldest first.
	Superseded [][]Entry `json:"superseded,omitempty"`
	// Upgrade is set from a change of Target until it is ready or given up.
	Upgrade *UpgradeProgress `json:"upgrade,omitempty"`
	// Quarantined model ids: their instances cannot be kept alive; traffic goes elsewhere.
	Quarantined []string `json:"quarantined,omitempty"`
	// TransitionAt is when Status last changed (ms since the epoch).
	TransitionAt int64 `json:"transition_at,omitempty"`
}

// UpgradeProgress tells how far a deployment or upgrade is.
type UpgradeProgress struct {
	StartedAt  int64 `json:"started_at"`  // ms since the epoch
	ProgressAt int64 `json:"progress_at"` // when another instance last became ready
	PausedAt   int64 `json:"paused_at,omitempty"`
	// First is true while nothing has ever served, so that there is nothing to go back to.
	First bool `json:"first,omitempty"`
	// Rollback is true while a failed or aborted upgrade is being undone; Reason says why.
	Rollback bool   `json:"rollback,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Failed is true when not even the rollback succeeded in time.
	Failed bool `json:"failed,omitempty"`
}

// UpdateResult is the outcome of an update of a service.
type UpdateResult string

// Outcomes of an update.
const (
	UpdateRunning UpdateResult = "RUNNING"
	UpdateSuccess UpdateResult = "SUCCESS"
	UpdateFail    UpdateResult = "FAIL"
)

// UpdateLog records one update of a service.
type UpdateLog struct {
	ServiceID  string       `json:"service_id"`
	Generation int64        `json:"generation"`
	UpdateTime int64        `json:"update_time"` // ms since the epoch
	Result     UpdateResult `json:"result"`
	Config     []Entry      `json:"config"`
	SuccessNum int          `json:"success_num"`
	FailedNum  int          `json:"failed_num"`
	// Detail says why the update failed.
	Detail string `json:"result_detail,omitempty"`
}
