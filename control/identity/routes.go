package identity

import (
	"net/http"

	"github.com/sluice-gateway/sluice/control/web"
)

// Routes are the operations of the IAM part of the API.
func (s *Service) Routes() []web.Route {
	routes := []web.Route{ //nolint:prealloc // a list
		{Name: "CreateToken", Method: http.MethodPost, Pattern: "/v3/auth/tokens", Public: true, Handle: s.createToken},
		{Name: "ShowToken", Method: http.MethodGet, Pattern: "/v3/auth/tokens", Handle: s.showToken},
		{Name: "RevokeToken", Method: http.MethodDelete, Pattern: "/v3/auth/tokens", Handle: s.revokeToken},
		{Name: "ListAuthProjects", Method: http.MethodGet, Pattern: "/v3/auth/projects", Handle: s.listProjects},
		{Name: "ListAuthDomains", Method: http.MethodGet, Pattern: "/v3/auth/domains", Handle: s.listDomains},

		{Name: "ListProjects", Method: http.MethodGet, Pattern: "/v3/projects", Handle: s.listProjects},
		{Name: "CreateProject", Method: http.MethodPost, Pattern: "/v3/projects", Handle: s.createProject},
		{Name: "ShowProject", Method: http.MethodGet, Pattern: "/v3/projects/{project}", Handle: s.showProject},
		{Name: "UpdateProject", Method: http.MethodPatch, Pattern: "/v3/projects/{project}", Handle: s.updateProject},
		{Name: "DeleteProject", Method: http.MethodDelete, Pattern: "/v3/projects/{project}", Handle: s.deleteProject},

		{Name: "ListUsers", Method: http.MethodGet, Pattern: "/v3/users", Handle: s.listUsers},
		{Name: "CreateUser", Method: http.MethodPost, Pattern: "/v3/users", Handle: s.createUser},
		{Name: "ShowUser", Method: http.MethodGet, Pattern: "/v3/users/{user_id}", Handle: s.showUser},
		{Name: "UpdateUser", Method: http.MethodPatch, Pattern: "/v3/users/{user_id}", Handle: s.updateUser},
		{Name: "DeleteUser", Method: http.MethodDelete, Pattern: "/v3/users/{user_id}", Handle: s.deleteUser},
		{Name: "ChangePassword", Method: http.MethodPost, Pattern: "/v3/users/{user_id}/password", Handle: s.changePassword},
		{Name: "ShowGrants", Method: http.MethodGet, Pattern: "/v3/users/{user_id}/grants", Handle: s.showGrants},
		{Name: "ReplaceGrants", Method: http.MethodPut, Pattern: "/v3/users/{user_id}/grants", Handle: s.replaceGrants},

		{Name: "ListRoles", Method: http.MethodGet, Pattern: "/v3/roles", Handle: s.listRoles},

		{Name: "CreateSecurityToken", Method: http.MethodPost, Pattern: "/v3.0/OS-CREDENTIAL/securitytokens", Public: true, Handle: s.createSecurityToken},
		{Name: "CreateAccessKey", Method: http.MethodPost, Pattern: "/v3.0/OS-CREDENTIAL/credentials", Handle: s.createKey},
		{Name: "ListAccessKeys", Method: http.MethodGet, Pattern: "/v3.0/OS-CREDENTIAL/credentials", Handle: s.listKeys},
		{Name: "ShowAccessKey", Method: http.MethodGet, Pattern: "/v3.0/OS-CREDENTIAL/credentials/{access_key}", Handle: s.showKey},
		{Name: "UpdateAccessKey", Method: http.MethodPut, Pattern: "/v3.0/OS-CREDENTIAL/credentials/{access_key}", Handle: s.updateKey},
		{Name: "DeleteAccessKey", Method: http.MethodDelete, Pattern: "/v3.0/OS-CREDENTIAL/credentials/{access_key}", Handle: s.deleteKey},
	}

	for _, scope := range []string{"/v3/projects/{project}", "/v3/domains/{domain_id}"} {
		users := scope + "/users/{user_id}/roles"
		routes = append(routes,
			web.Route{Name: "ListUserRoles", Method: http.MethodGet, Pattern: users, Handle: s.listUserRoles},
			web.Route{Name: "CheckRole", Method: http.MethodGet, Pattern: users + "/{role_id}", Handle: s.changeRole},
			web.Route{Name: "GrantRole", Method: http.MethodPut, Pattern: users + "/{role_id}", Handle: s.changeRole},
			web.Route{Name: "RevokeRole", Method: http.MethodDelete, Pattern: users + "/{role_id}", Handle: s.changeRole},
		)
	}

	for i := range routes {
		routes[i].Style = web.IAM
	}

	return routes
}
