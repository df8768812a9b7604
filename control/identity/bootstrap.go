package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/atomicfile"
	"github.com/sluice-gateway/sluice/spec"
)

// Bootstrap is the content of the bootstrap file.
type Bootstrap struct {
	Domain      string `json:"domain"`
	ProjectID   string `json:"project_id"`
	ProjectName string `json:"project_name"`
	User        string `json:"user"`
	Password    string `json:"password"`
	AccessKey   string `json:"access_key"`
	SecretKey   string `json:"secret_key"`
}

// bootstrap creates the first domain, project and administrator.
//
// The file comes first: a start that is cut off between the two leaves credentials that are
// not in force yet, and the next start puts those very credentials into force. The
// transaction carries a marker, so that it happens once, whatever becomes of the file later.
func (s *Service) bootstrap(ctx context.Context) error {
	marker := store.IndexKey("bootstrap")

	_, err := s.st.Index.Get(ctx, marker)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}

	b, created, err := s.bootstrapFile()
	if err != nil {
		return err
	}

	ops, err := s.bootstrapOps(ctx, b)
	if err != nil {
		return err
	}

	_, err = s.st.Commit(ctx, append(ops, s.st.Index.CreateOp(marker, b.ProjectID))...)
	if errors.Is(err, store.ErrExists) {
		// Another control process was first; its file holds the credentials.
		if created {
			err = os.Remove(s.cfg.BootstrapFile)
		} else {
			err = nil
		}
	}

	if err != nil {
		return fmt.Errorf("create the first administrator: %w", err)
	}

	return nil
}

// bootstrapFile reads the file that an earlier start left, or writes a new one.
func (s *Service) bootstrapFile() (b Bootstrap, created bool, err error) {
	path := s.cfg.BootstrapFile

	data, err := os.ReadFile(path)
	if err == nil {
		if err = json.Unmarshal(data, &b); err == nil && (b.Password == "" || b.AccessKey == "" || b.SecretKey == "" || b.ProjectID == "") {
			err = errors.New("a field is missing")
		}

		if err != nil {
			return b, false, fmt.Errorf("%s is not what sluice wrote, and no administrator exists yet: %w (remove it to start anew)", path, err)
		}

		return b, false, nil
	}

	if !errors.Is(err, fs.ErrNotExist) {
		return b, false, fmt.Errorf("read bootstrap file: %w", err)
	}

	b = Bootstrap{
		Domain: s.cfg.DomainName, ProjectID: NewID(), ProjectName: s.cfg.ProjectName, User: s.cfg.UserName,
		Password: randomText(24, letters), AccessKey: newAccessKey(), SecretKey: newSecretKey(),
	}

	if data, err = json.MarshalIndent(b, "", "  "); err != nil { //nolint:gosec // the file is for the very purpose
		return b, false, fmt.Errorf("encode bootstrap file: %w", err)
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return b, false, fmt.Errorf("bootstrap file: %w", err)
	}

	if err := atomicfile.Create(path, append(data, '\n'), 0o600); err != nil {
		return b, false, fmt.Errorf("bootstrap file: %w", err)
	}

	return b, true, nil
}

func (s *Service) bootstrapOps(ctx context.Context, b Bootstrap) ([]store.Op, error) {
	hash, err := s.hasher.hash(ctx, netip.Addr{}, b.Password)
	if err != nil {
		return nil, fmt.Errorf("hash password: %w", err)
	}

	now := s.nowMillis()
	domain := spec.Domain{ID: NewID(), Name: b.Domain}
	project := spec.Project{ID: b.ProjectID, Name: b.ProjectName, DomainID: domain.ID, Enabled: true, CreatedAt: now}
	user := spec.User{
		ID: NewID(), Name: b.User, DomainID: domain.ID, Enabled: true, PasswordHash: hash, CreatedAt: now,
		Grants: []spec.Grant{{ProjectID: anyProject, Role: spec.RoleAdministrator}},
	}
	key := spec.AccessKey{
		AccessKey: b.AccessKey, SealedSecret: s.ring.Seal([]byte(b.SecretKey), auth.SecretKeyContext(b.AccessKey)),
		UserID: user.ID, DomainID: domain.ID, Enabled: true, CreatedAt: now,
	}

	return []store.Op{
		s.st.Domains.CreateOp(domain.ID, domain),
		s.st.Index.CreateOp(store.IndexKey(store.IndexDomain, domain.Name), domain.ID),
		s.st.Projects.CreateOp(project.ID, project),
		s.st.Index.CreateOp(store.IndexKey(store.IndexProject, domain.ID, project.Name), project.ID),
		s.st.Users.CreateOp(user.ID, user),
		s.st.Index.CreateOp(store.IndexKey(store.IndexUser, domain.ID, user.Name), user.ID),
		s.st.AccessKeys.CreateOp(key.AccessKey, key),
	}, nil
}

// anyProject in a grant means every project of the domain.
const anyProject = "*"
