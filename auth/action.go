package auth

import (
	"strings"

	"github.com/sluice-gateway/sluice/spec"
)

// Actions. Those of the platform have its names; the rest follow its form. The middle word is
// the kind of the resource: "modelarts:service:get" acts on "modelarts:{project}:service:{id}".
const (
	ActionPredict = spec.ActionPredict

	ActionServiceCreate     = "modelarts:service:create"
	ActionServiceList       = "modelarts:service:list"
	ActionServiceGet        = "modelarts:service:get"
	ActionServiceUpdate     = "modelarts:service:update"
	ActionServiceDelete     = "modelarts:service:delete"
	ActionServiceAction     = "modelarts:service:action" // start and stop
	ActionServiceGetLogs    = "modelarts:service:getLogs"
	ActionServiceGetMonitor = "modelarts:service:getMonitor"
	ActionServiceGetEvents  = "modelarts:service:getEvents"

	ActionModelCreate = "modelarts:model:create"
	ActionModelList   = "modelarts:model:list"
	ActionModelGet    = "modelarts:model:get"
	ActionModelDelete = "modelarts:model:delete"

	ActionAppCreate = "modelarts:app:create"
	ActionAppList   = "modelarts:app:list"
	ActionAppGet    = "modelarts:app:get"
	ActionAppUpdate = "modelarts:app:update" // reset of secret and codes, grants
	ActionAppDelete = "modelarts:app:delete"

	ActionAuditList = "modelarts:audit:list"

	ActionUserCreate = "iam:user:create"
	ActionUserList   = "iam:user:list"
	ActionUserGet    = "iam:user:get"
	ActionUserUpdate = "iam:user:update" // password, enabled, grants
	ActionUserDelete = "iam:user:delete"

	ActionProjectCreate = "iam:project:create"
	ActionProjectList   = "iam:project:list"
	ActionProjectGet    = "iam:project:get"
	ActionProjectUpdate = "iam:project:update"
	ActionProjectDelete = "iam:project:delete"

	ActionKeyCreate = "iam:credential:create"
	ActionKeyList   = "iam:credential:list"
	ActionKeyGet    = "iam:credential:get"
	ActionKeyUpdate = "iam:credential:update"
	ActionKeyDelete = "iam:credential:delete"

	ActionTokenRevoke = "iam:token:revoke"
)

// Actions returns every action that Sluice itself checks.
func Actions() []string { return append([]string(nil), actionNames[:]...) }

//nolint:gochecknoglobals // constant tables
var (
	actionNames = [...]string{
		ActionPredict,
		ActionServiceCreate, ActionServiceList, ActionServiceGet, ActionServiceUpdate, ActionServiceDelete,
		ActionServiceAction, ActionServiceGetLogs, ActionServiceGetMonitor, ActionServiceGetEvents,
		ActionModelCreate, ActionModelList, ActionModelGet, ActionModelDelete,
		ActionAppCreate, ActionAppList, ActionAppGet, ActionAppUpdate, ActionAppDelete,
		ActionAuditList,
		ActionUserCreate, ActionUserList, ActionUserGet, ActionUserUpdate, ActionUserDelete,
		ActionProjectCreate, ActionProjectList, ActionProjectGet, ActionProjectUpdate, ActionProjectDelete,
		ActionKeyCreate, ActionKeyList, ActionKeyGet, ActionKeyUpdate, ActionKeyDelete,
		ActionTokenRevoke,
	}

	actionIndex = func() map[string]int {
		m := make(map[string]int, len(actionNames))
		for i, name := range actionNames {
			m[name] = i
		}

		return m
	}()
)

// roleAllows is the table of the built-in roles.
func roleAllows(role spec.Role, action string) bool {
	switch role {
	case spec.RoleAdministrator:
		return true
	case spec.RoleOperator:
		return strings.HasPrefix(action, "modelarts:")
	case spec.RoleCaller:
		return action == ActionPredict
	}

	return false
}

// KnownRole reports whether role is a built-in role.
func KnownRole(role spec.Role) bool {
	return role == spec.RoleAdministrator || role == spec.RoleOperator || role == spec.RoleCaller
}
