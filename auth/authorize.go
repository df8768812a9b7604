package auth

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Authorize tells whether p may do action on a resource of a project: a service for
// "modelarts:service:…", a model for "modelarts:model:…", and so on; id is empty for a collection.
// projectID is empty for what belongs to a domain; then only grants for every project count.
// The error is a *fault.Error.
func (d *Directory) Authorize(p *Principal, action, projectID, id string) error {
	switch p.Method {
	case MethodToken, MethodAKSK:
		return d.authorizeUser(p, action, projectID, id)
	case MethodAppSignature, MethodAppCode, MethodAppKey:
		if action != ActionPredict {
			return errForbidden
		}

		return d.AppMayCall(p, id)
	case MethodNone:
		if action == ActionPredict && d.ServiceAuth(id).Has(AllowNone) {
			return nil
		}
	}

	return errNoCredentials
}

func (d *Directory) authorizeUser(p *Principal, action, projectID, id string) error {
	if err := d.checkProject(p, projectID); err != nil {
		return err
	}

	u := d.users.users[p.UserID]
	if u == nil || !u.spec.Enabled {
		return errForbidden
	}

	var buf [256]byte

	resource := appendResource(buf[:0], action, projectID, id)

	own := silent
	if projectID != "" {
		own = u.rights[projectID].evaluate(action, resource)
	}

	everywhere := silent
	if projectID == "" || d.inDomain(projectID, u.spec.DomainID) {
		everywhere = u.any.evaluate(action, resource)
	}

	if own == denied || everywhere == denied || own == silent && everywhere == silent {
		return errForbidden
	}

	return nil
}

// checkProject holds a principal to the project that it was scoped to.
func (d *Directory) checkProject(p *Principal, projectID string) error {
	if projectID == "" {
		return nil
	}

	if p.ProjectID == "" && p.Method == MethodToken {
		return errTokenScope
	}

	if p.ProjectID != "" && p.ProjectID != projectID {
		return errProjectMismatch
	}

	if project := d.users.projects[projectID]; project != nil && !project.Enabled {
		return errProjectDisabled
	}

	return nil
}

func (d *Directory) inDomain(projectID, domainID string) bool {
	project := d.users.projects[projectID]

	return project != nil && project.DomainID == domainID
}

// AppMayCall tells whether an app has a grant for a service, and for codes whether the service
// takes codes. The error is a *fault.Error.
func (d *Directory) AppMayCall(p *Principal, serviceID string) error {
	s := d.services[serviceID]
	if s == nil {
		return errAppNotAuthorised
	}

	if _, ok := s.apps[p.AppID]; !ok {
		return errAppNotAuthorised
	}

	if p.Method == MethodAppCode && !s.codes {
		return errCodesOff
	}

	return nil
}

// Faults that say the same every time. Shared, never changed.
var (
	errForbidden        = fault.New(fault.Forbidden, "")
	errNoCredentials    = fault.New(fault.NoCredentials, "")
	errTokenScope       = fault.New(fault.TokenScope, "")
	errProjectMismatch  = fault.New(fault.ProjectMismatch, "")
	errProjectDisabled  = fault.New(fault.ProjectUnavailable, "")
	errAppNotAuthorised = fault.New(fault.AppNotAuthorised, "")
	errCodesOff         = fault.New(fault.AppNotAuthorised, "The service does not accept app codes.")
)

// milliTime is a time in ms since the epoch; zero stays the zero time.
func milliTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}

	return time.UnixMilli(ms)
}
