package plan

import (
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/spec"
)

// guard is a Verifier bound to the credentials of one snapshot.
type guard struct {
	verifier  *auth.Verifier
	directory *auth.Directory
}

// Guards makes the guard of each snapshot: its credentials, opened with box, and the
// long-lived verifier v. Credentials that cannot be used are logged and left out.
func Guards(v *auth.Verifier, box auth.Opener, log *slog.Logger) NewGuard {
	return func(s *spec.Snapshot, prev Guard) (Guard, error) {
		var before *auth.Directory
		if g, ok := prev.(*guard); ok {
			before = g.directory
		}

		d, err := auth.Compile(s, box, before)
		if err != nil {
			return nil, fmt.Errorf("directory of revision %d: %w", s.Revision, err)
		}

		for _, problem := range d.Problems() {
			log.Warn("a credential cannot be used", slog.Int64("revision", s.Revision), slog.Any("error", problem))
		}

		return &guard{verifier: v, directory: d}, nil
	}
}

// Verify implements Guard.
func (g *guard) Verify(r *auth.Request, allowed auth.AuthSet) (*auth.Principal, error) {
	return g.verifier.Verify(g.directory, r, allowed) //nolint:wrapcheck // a fault
}

// Authorize implements Guard.
func (g *guard) Authorize(p *auth.Principal, action, projectID, serviceID string) error {
	return g.directory.Authorize(p, action, projectID, serviceID) //nolint:wrapcheck // a fault
}
