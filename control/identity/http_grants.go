package identity

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Bounds of grants.
const (
	maxGrants     = 100
	maxStatements = 20
	maxPatterns   = 100
	maxPattern    = 255
)

type roleView struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	DisplayName string `json:"display_name"`
	Description string `json:"description"`
	Type        string `json:"type"`
}

func roles() []roleView {
	return []roleView{
		{string(spec.RoleAdministrator), string(spec.RoleAdministrator), "Administrator", "Everything in the domain.", "AX"},
		{string(spec.RoleOperator), string(spec.RoleOperator), "Operator", "Manage models and services, and predict.", "AX"},
		{string(spec.RoleCaller), string(spec.RoleCaller), "Caller", "Predict only.", "AX"},
	}
}

func roleRef(r spec.Role) namedID { return namedID{ID: string(r), Name: string(r)} }

func (s *Service) listRoles(r *web.Request) (any, error) {
	return map[string]any{"roles": roles(), "links": links{Self: r.BaseURL() + "/v3/roles"}, "total_number": len(roles())}, nil
}

// grantScope is the project in the path, or every project for the routes of a domain.
func (s *Service) grantScope(r *web.Request) (string, error) {
	if id := r.Var("domain_id"); id != "" {
		if id != r.Principal.DomainID {
			return "", web.NotFound("domain", id)
		}

		return anyProject, nil
	}

	p, err := s.domainProject(r, r.Var("project"))

	return p.Value.ID, err
}

func (s *Service) listUserRoles(r *web.Request) (any, error) {
	if err := s.mayManage(r, auth.ActionUserGet, r.Var("user_id")); err != nil {
		return nil, err
	}

	project, err := s.grantScope(r)
	if err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	views := []roleView{}

	for _, v := range roles() {
		if hasRole(&it.Value, project, spec.Role(v.ID)) {
			views = append(views, v)
		}
	}

	return map[string]any{"roles": views, "links": links{Self: r.BaseURL() + r.HTTP.URL.EscapedPath()}}, nil
}

func hasRole(u *spec.User, project string, role spec.Role) bool {
	return slices.ContainsFunc(u.Grants, func(g spec.Grant) bool { return g.ProjectID == project && g.Role == role })
}

// changeRole gives, takes or looks for one role.
func (s *Service) changeRole(r *web.Request) (any, error) {
	action := auth.ActionUserUpdate
	if r.HTTP.Method == http.MethodHead || r.HTTP.Method == http.MethodGet {
		action = auth.ActionUserGet
	}

	if err := r.Authorize(action, "", r.Var("user_id")); err != nil {
		return nil, err
	}

	project, err := s.grantScope(r)
	if err != nil {
		return nil, err
	}

	role := spec.Role(r.Var("role_id"))
	if !auth.KnownRole(role) {
		return nil, web.NotFound("role", string(role))
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	has := hasRole(&it.Value, project, role)

	switch {
	case action == auth.ActionUserGet && !has:
		return nil, web.NotFound("grant", string(role))
	case action == auth.ActionUserGet:
		return noContent(), nil
	case r.HTTP.Method == http.MethodDelete && !has:
		return nil, web.NotFound("grant", string(role))
	}

	err = s.updateGrants(r, it.ID, func(grants []spec.Grant) ([]spec.Grant, error) {
		grants = slices.DeleteFunc(slices.Clone(grants), func(g spec.Grant) bool { return g.ProjectID == project && g.Role == role })
		if r.HTTP.Method == http.MethodPut {
			grants = append(grants, spec.Grant{ProjectID: project, Role: role})
		}

		return grants, nil
	})
	if err != nil {
		return nil, err
	}

	return noContent(), nil
}

func (s *Service) updateGrants(r *web.Request, userID string, change func([]spec.Grant) ([]spec.Grant, error)) error {
	_, err := s.st.Users.Update(r.Context(), userID, func(u *spec.User) error {
		grants, err := change(u.Grants)
		if err != nil {
			return err
		}

		if len(grants) > maxGrants {
			return fault.New(fault.QuotaExceeded, "A user may have at most %d grants.", maxGrants)
		}

		if u.ID == r.Principal.UserID && isAdministrator(u.Grants) && !isAdministrator(grants) {
			return fault.New(fault.Conflict, "Administrators cannot take their own role away.")
		}

		u.Grants = grants

		return nil
	})
	if err != nil {
		if f := fault.From(err); f.Code != fault.Internal {
			return err
		}

		return gone(err, "user", userID)
	}

	s.changed(r.Context(), store.KindUsers)

	return nil
}

func isAdministrator(grants []spec.Grant) bool {
	return slices.ContainsFunc(grants, func(g spec.Grant) bool {
		return g.ProjectID == anyProject && g.Role == spec.RoleAdministrator
	})
}

type grantsBody struct {
	Grants *[]struct {
		ProjectID  string      `json:"project_id"`
		Role       string      `json:"role"`
		Statements []statement `json:"statements"`
	} `json:"grants"`
}

type statement struct {
	Effect    string   `json:"effect"`
	Actions   []string `json:"actions"`
	Resources []string `json:"resources"`
}

func (s *Service) showGrants(r *web.Request) (any, error) {
	if err := s.mayManage(r, auth.ActionUserGet, r.Var("user_id")); err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	return viewGrants(it.Value.Grants), nil
}

func viewGrants(grants []spec.Grant) any {
	if grants == nil {
		grants = []spec.Grant{}
	}

	return map[string]any{"grants": grants}
}

// replaceGrants sets every grant of a user at once: roles and policies.
func (s *Service) replaceGrants(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionUserUpdate, "", r.Var("user_id")); err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	var in grantsBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	grants, err := s.checkGrants(r, &in)
	if err != nil {
		return nil, err
	}

	err = s.updateGrants(r, it.ID, func([]spec.Grant) ([]spec.Grant, error) { return grants, nil })
	if err != nil {
		return nil, err
	}

	return viewGrants(grants), nil
}

func (s *Service) checkGrants(r *web.Request, in *grantsBody) ([]spec.Grant, error) {
	if in.Grants == nil {
		return nil, web.Required("grants")
	}

	if len(*in.Grants) > maxGrants {
		return nil, web.Fieldf("grants", "must have at most %d elements", maxGrants)
	}

	var errs []error

	grants := make([]spec.Grant, 0, len(*in.Grants))

	for i, g := range *in.Grants {
		path := fmt.Sprintf("grants[%d]", i)

		if g.ProjectID != anyProject {
			if _, err := s.domainProject(r, g.ProjectID); err != nil {
				errs = append(errs, fieldError(path+".project_id", `names no project ("*" means every project)`))
			}
		}

		if g.Role != "" && !auth.KnownRole(spec.Role(g.Role)) {
			errs = append(errs, fieldError(path+".role", "must be administrator, operator or caller"))
		}

		if g.Role == "" && len(g.Statements) == 0 {
			errs = append(errs, fieldError(path, "must have a role or statements"))
		}

		if len(g.Statements) > maxStatements {
			errs = append(errs, fieldError(path+".statements", "must have at most %d elements", maxStatements))

			continue
		}

		grant := spec.Grant{ProjectID: g.ProjectID, Role: spec.Role(g.Role)}

		for j, st := range g.Statements {
			errs = append(errs, checkStatement(fmt.Sprintf("%s.statements[%d]", path, j), &st)...)
			grant.Statements = append(grant.Statements, spec.Statement(st))
		}

		grants = append(grants, grant)
	}

	return grants, web.Invalid(errs...)
}

func checkStatement(path string, st *statement) (errs []error) {
	if st.Effect != "Allow" && st.Effect != "Deny" {
		errs = append(errs, fieldError(path+".effect", "must be Allow or Deny"))
	}

	if len(st.Actions) == 0 {
		errs = append(errs, fieldError(path+".actions", "is required and cannot be empty"))
	}

	for name, patterns := range map[string][]string{"actions": st.Actions, "resources": st.Resources} {
		if len(patterns) > maxPatterns {
			errs = append(errs, fieldError(path+"."+name, "must have at most %d elements", maxPatterns))

			continue
		}

		for i, p := range patterns {
			if p == "" || len(p) > maxPattern || strings.Count(p, "*") > 8 {
				errs = append(errs, fieldError(fmt.Sprintf("%s.%s[%d]", path, name, i),
					"must have 1 to %d bytes and at most 8 asterisks", maxPattern))
			}
		}
	}

	return errs
}

func fieldError(path, format string, args ...any) error {
	return &spec.FieldError{Path: path, Msg: fmt.Sprintf(format, args...)}
}
