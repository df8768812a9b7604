package store

import (
	"context"
	"fmt"

	"github.com/sluice-gateway/sluice/spec"
)

// CredentialKinds are the kinds that Credentials reads.
func CredentialKinds() []string {
	return []string{KindProjects, KindUsers, KindAccessKeys, KindApps, KindTokenKeys, KindRevocations}
}

// Credentials fills the part of a snapshot that says who may call, read at one revision:
// projects, users without their password hashes, access keys, apps, public token keys and
// revocations. rev 0 reads what is newest; the revision read is returned.
func (s *Store) Credentials(ctx context.Context, snap *spec.Snapshot, rev int64) (int64, error) {
	var err error

	if snap.Projects, rev, err = s.Projects.Values(ctx, rev); err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	if snap.Users, _, err = s.Users.Values(ctx, rev); err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	for i := range snap.Users {
		snap.Users[i].PasswordHash = ""
	}

	if snap.AccessKeys, _, err = s.AccessKeys.Values(ctx, rev); err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	if snap.Apps, _, err = s.Apps.Values(ctx, rev); err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	keys, _, err := s.TokenKeys.Values(ctx, rev)
	if err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	snap.TokenKeys = make([]spec.TokenKey, len(keys))
	for i := range keys {
		snap.TokenKeys[i] = keys[i].Public()
	}

	if snap.Revocations, _, err = s.Revocations.Values(ctx, rev); err != nil {
		return 0, fmt.Errorf("read credentials: %w", err)
	}

	return rev, nil
}
