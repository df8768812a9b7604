package identity

import (
	"errors"
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

type projectView struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	DomainID    string   `json:"domain_id"`
	ParentID    string   `json:"parent_id"`
	Description string   `json:"description"`
	Enabled     bool     `json:"enabled"`
	IsDomain    bool     `json:"is_domain"`
	Links       selfLink `json:"links"`
}

type projectIn struct {
	Project *struct {
		Name        *string `json:"name"`
		DomainID    *string `json:"domain_id"`
		Description *string `json:"description"`
		Enabled     *bool   `json:"enabled"`
	} `json:"project"`
}

func viewProject(r *web.Request, p *spec.Project) projectView {
	return projectView{
		ID: p.ID, Name: p.Name, DomainID: p.DomainID, ParentID: p.DomainID, Description: p.Description,
		Enabled: p.Enabled, Links: selfLink{r.BaseURL() + "/v3/projects/" + p.ID},
	}
}

// domainProject reads a project of the caller's domain.
func (s *Service) domainProject(r *web.Request, id string) (store.Item[spec.Project], error) {
	if !isID(id) {
		return store.Item[spec.Project]{}, web.NotFound("project", id)
	}

	it, err := s.st.Projects.Get(r.Context(), id)
	if err != nil {
		return it, gone(err, "project", id)
	}

	if it.Value.DomainID != r.Principal.DomainID {
		return it, web.NotFound("project", id)
	}

	return it, nil
}

// listProjects shows the projects that the caller has to do with; administrators see all.
func (s *Service) listProjects(r *web.Request) (any, error) {
	q := r.Query()
	name, enabled, domain := q.String("name"), q.Bool("enabled"), q.String("domain_id")

	if err := q.Err(); err != nil {
		return nil, err
	}

	projects, _, err := s.st.Projects.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list projects: %w", err)
	}

	user, err := s.domainUser(r, r.Principal.UserID)
	if err != nil {
		return nil, err
	}

	slices.SortFunc(projects, func(a, b spec.Project) int { return strings.Compare(a.Name, b.Name) })

	views := []projectView{}

	for i := range projects {
		p := &projects[i]

		granted := slices.ContainsFunc(user.Value.Grants, func(g spec.Grant) bool {
			return g.ProjectID == anyProject || g.ProjectID == p.ID
		})
		if granted && p.DomainID == r.Principal.DomainID && (name == "" || p.Name == name) &&
			(domain == "" || p.DomainID == domain) && (!q.Has("enabled") || p.Enabled == enabled) {
			views = append(views, viewProject(r, p))
		}
	}

	return map[string]any{"links": links{Self: r.BaseURL() + "/v3/projects"}, "projects": views}, nil
}

func (s *Service) listDomains(r *web.Request) (any, error) {
	it, err := s.st.Domains.Get(r.Context(), r.Principal.DomainID)
	if err != nil {
		return nil, gone(err, "domain", r.Principal.DomainID)
	}

	return map[string]any{
		"links": links{Self: r.BaseURL() + "/v3/auth/domains"},
		"domains": []map[string]any{{
			"id": it.Value.ID, "name": it.Value.Name, "enabled": true, "description": "",
			"links": selfLink{r.BaseURL() + "/v3/domains/" + it.Value.ID},
		}},
	}, nil
}

func (s *Service) showProject(r *web.Request) (any, error) {
	it, err := s.domainProject(r, r.Var("project"))
	if err != nil {
		return nil, err
	}

	if r.Principal.ProjectID != it.ID {
		if err := r.Authorize(auth.ActionProjectGet, "", it.ID); err != nil {
			return nil, err
		}
	}

	return map[string]any{"project": viewProject(r, &it.Value)}, nil
}

func (s *Service) createProject(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionProjectCreate, "", ""); err != nil {
		return nil, err
	}

	var in projectIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Project == nil || in.Project.Name == nil {
		return nil, web.Required("project.name")
	}

	if d := in.Project.DomainID; d != nil && *d != r.Principal.DomainID {
		return nil, forbidden()
	}

	p := spec.Project{ID: NewID(), DomainID: r.Principal.DomainID, Enabled: true, CreatedAt: s.nowMillis()}
	if err := applyProject(&p, &in); err != nil {
		return nil, err
	}

	ops := []store.Op{
		s.st.Index.CreateOp(store.IndexKey(store.IndexProject, p.DomainID, p.Name), p.ID),
		s.st.Projects.CreateOp(p.ID, p),
	}
	if err := s.commitProject(r, &p, ops); err != nil {
		return nil, err
	}

	return web.Reply{Status: http.StatusCreated, Body: map[string]any{"project": viewProject(r, &p)}}, nil
}

func applyProject(p *spec.Project, in *projectIn) error {
	if n := in.Project.Name; n != nil {
		if err := checkName("project.name", *n); err != nil {
			return err
		}

		p.Name = *n
	}

	description, err := optionalText("project.description", in.Project.Description)
	if err != nil {
		return err
	}

	if in.Project.Description != nil {
		p.Description = description
	}

	if in.Project.Enabled != nil {
		p.Enabled = *in.Project.Enabled
	}

	return nil
}

func (s *Service) updateProject(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionProjectUpdate, "", r.Var("project")); err != nil {
		return nil, err
	}

	it, err := s.domainProject(r, r.Var("project"))
	if err != nil {
		return nil, err
	}

	var in projectIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Project == nil {
		return nil, web.Required("project")
	}

	p, old := it.Value, it.Value.Name
	if err := applyProject(&p, &in); err != nil {
		return nil, err
	}

	ops := []store.Op{s.st.Projects.CompareOp(p.ID, p, it.Revision)}
	if p.Name != old {
		ops = append(ops,
			s.st.Index.CreateOp(store.IndexKey(store.IndexProject, p.DomainID, p.Name), p.ID),
			s.st.Index.DeleteOp(store.IndexKey(store.IndexProject, p.DomainID, old), 0))
	}

	if err := s.commitProject(r, &p, ops); err != nil {
		return nil, err
	}

	return map[string]any{"project": viewProject(r, &p)}, nil
}

// deleteProject removes a project that holds no models, services or apps any more.
func (s *Service) deleteProject(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionProjectDelete, "", r.Var("project")); err != nil {
		return nil, err
	}

	it, err := s.domainProject(r, r.Var("project"))
	if err != nil {
		return nil, err
	}

	for _, index := range []string{store.IndexModel, store.IndexService, store.IndexApp} {
		used, _, err := s.st.Index.ListPrefix(r.Context(), store.IndexKey(index, it.ID)+"/")
		if err != nil {
			return nil, fmt.Errorf("delete project: %w", err)
		}

		if len(used) > 0 {
			return nil, fault.New(fault.Conflict, "The project still holds a %s.", index)
		}
	}

	ops := []store.Op{
		s.st.Projects.DeleteOp(it.ID, it.Revision),
		s.st.Index.DeleteOp(store.IndexKey(store.IndexProject, it.Value.DomainID, it.Value.Name), 0),
	}
	if err := s.commitProject(r, &it.Value, ops); err != nil {
		return nil, err
	}

	return noContent(), nil
}

func (s *Service) commitProject(r *web.Request, p *spec.Project, ops []store.Op) error {
	_, err := s.st.Commit(r.Context(), ops...)

	switch {
	case errors.Is(err, store.ErrExists):
		return fault.New(fault.ObjectExists, "The project %s already exists.", p.Name)
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return fault.New(fault.Conflict, "The project was changed at the same time.")
	case err != nil:
		return fmt.Errorf("change project: %w", err)
	}

	s.changed(r.Context(), store.KindProjects)

	return nil
}
