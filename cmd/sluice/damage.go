package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/spec"
)

// damagedError is what a start finds damaged. It says how to go on.
type damagedError struct{ error }

// Error implements error in one line.
func (e damagedError) Error() string {
	if errors.Is(e.error, store.ErrNewerSchema) {
		return e.error.Error() + "; start the release that wrote it, or restore an older backup: sluice restore --from BACKUP --data NEWDIR"
	}

	return e.error.Error() + "; to restore a backup: sluice restore --from BACKUP --data NEWDIR"
}

// Unwrap implements errors.Unwrap.
func (e damagedError) Unwrap() error { return e.error }

// stateUsed reports whether the platform was set up in this state once.
func (b *builder) stateUsed() (bool, error) {
	if b.role != roleAll {
		return true, nil // others may have
	}

	_, err := b.store.Index.Get(b.ctx, store.IndexKey("bootstrap"))
	if errors.Is(err, store.ErrNotFound) {
		return false, b.checkNew()
	}

	if err != nil {
		return false, fmt.Errorf("read the state: %w", err)
	}

	return true, nil
}

// checkNew refuses to set up a platform where packages of another one are: its state is lost.
func (b *builder) checkNew() error {
	packages, err := filepath.Glob(filepath.Join(b.settings.DataDir, "packages", "sha256", "*"))
	if err != nil {
		return fmt.Errorf("look for packages: %w", err)
	}

	if len(packages) > 0 && b.etcd == nil {
		return damagedError{fmt.Errorf("%s holds %d packages, and the state in etcd/ that they belong to is gone", b.settings.DataDir, len(packages))}
	}

	return nil
}

// checkBytes bounds what a start reads to compare packages with their hashes. Of what is
// beyond, workers notice what is missing when they load it.
const checkBytes = 2 << 30

// checkPackages compares the packages of services that should run with what was imported.
func (b *builder) checkPackages() error {
	services, _, err := b.store.Services.Values(b.ctx, 0)
	if err != nil {
		return fmt.Errorf("check packages: %w", err)
	}

	var (
		left = int64(checkBytes)
		seen = map[string]bool{}
	)

	for i := range services {
		if services[i].Stopped || services[i].Deleting {
			continue
		}

		for _, e := range services[i].Entries {
			if seen[e.ModelID] {
				continue
			}

			seen[e.ModelID] = true

			m, err := b.store.Models.Get(b.ctx, e.ModelID)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}

			if err != nil {
				return fmt.Errorf("check packages: %w", err)
			}

			if left -= m.Value.Package.SizeBytes; left < 0 {
				b.log.Info("too much to compare with its hashes at start", slog.String("model_id", e.ModelID))

				continue
			}

			if err := b.checkPackage(&services[i], &m.Value); err != nil {
				return err
			}
		}
	}

	return nil
}

func (b *builder) checkPackage(svc *spec.Service, m *spec.Model) error {
	err := b.packages.Damage(b.ctx, &m.Package)
	if err == nil {
		return nil
	}

	err = fmt.Errorf("the package of model %s %s, which service %s runs, is damaged: %w", m.Name, m.Version, svc.Name, err)
	if b.settings.AllowDamaged {
		b.log.Error("starting nonetheless", slog.Any("error", err))

		return nil
	}

	return damagedError{fmt.Errorf("%w; to start without it: --allow-damaged", err)}
}
