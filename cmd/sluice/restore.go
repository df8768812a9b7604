package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/control/backup"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

type restoreFlags struct {
	from, data, keyring, config string
	etcd                        etcdSettings
	again                       bool
}

func restoreCommand() *cobra.Command {
	var f restoreFlags

	cmd := &cobra.Command{
		Use: "restore", Args: cobra.NoArgs,
		Short: "Make a new data directory of a backup, with the state in it or in an etcd beside it",
		Example: `  sluice restore --from sluice-backup.tar.gz --data newdata --keyring keyring
  sluice restore --from sluice-backup.tar.gz --data newdata --config control.yaml
  sluice restore --from sluice-backup.tar.gz --data newdata --etcd-endpoints http://127.0.0.1:2379`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}

	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "archive that sluice backup wrote")
	fl.StringVar(&f.data, "data", "", "data directory to make; it must not exist, or be empty")
	fl.StringVar(&f.keyring, "keyring", "", "key ring to copy into it, for an archive without one")
	fl.StringVar(&f.config, "config", "", "configuration file of control, for etcd: with etcd.endpoints the state goes there")
	fl.StringSliceVar(&f.etcd.Endpoints, "etcd-endpoints", nil, "etcd to write the state into; nothing may be there under the prefix")
	fl.StringVar(&f.etcd.Prefix, "etcd-prefix", "", "prefix of all keys in etcd (default "+store.DefaultPrefix+")")
	fl.BoolVar(&f.again, "again", false, "remove first what a restore into etcd has left that did not come to its end")
	must(cmd.MarkFlagRequired("from"))
	must(cmd.MarkFlagRequired("data"))

	return cmd
}

// settings are those of the configuration file, with what flags say instead.
func (f *restoreFlags) settings() (*settings, error) {
	s := defaultSettings()

	if f.config != "" {
		sf := serveFlags{config: f.config, data: f.data}
		if err := sf.apply(&s); err != nil {
			return nil, usageError{err}
		}

		if len(s.Etcd.Endpoints) == 0 && len(f.etcd.Endpoints) == 0 {
			return nil, usageError{fmt.Errorf("--config: %s names no etcd.endpoints; leave it out to restore a data directory with a state of its own", f.config)}
		}
	}

	s.DataDir = f.data

	if len(f.etcd.Endpoints) > 0 {
		s.Etcd.Endpoints = f.etcd.Endpoints
	}

	if f.etcd.Prefix != "" {
		s.Etcd.Prefix = f.etcd.Prefix
	}

	if err := s.Etcd.validate(); err != nil {
		return nil, usageError{fmt.Errorf("etcd: %w", err)}
	}

	if len(s.Etcd.Endpoints) == 0 && (s.Etcd.Prefix != "" || f.again) {
		return nil, usageError{errors.New("--etcd-prefix and --again are about an etcd: give --etcd-endpoints or --config")}
	}

	return &s, nil
}

func (f *restoreFlags) run(ctx context.Context, stdout io.Writer) error {
	s, err := f.settings()
	if err != nil {
		return err
	}

	in, err := os.Open(f.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer in.Close() //nolint:errcheck // read only

	var ring []byte

	if f.keyring != "" {
		if ring, err = os.ReadFile(f.keyring); err != nil {
			return fmt.Errorf("--keyring: %w", err)
		}
	}

	m, err := f.restore(ctx, s, in)
	if err != nil {
		return fmt.Errorf("%s: %w", f.from, err)
	}

	_, _ = fmt.Fprintf(stdout, "%s: made of a backup of %s: state at revision %d (%d records), %d models, %d files\n",
		f.data, m.Created.Format("2006-01-02 15:04:05 MST"), m.Revision, m.Records, m.Models, len(m.Files))

	if len(s.Etcd.Endpoints) > 0 {
		_, _ = fmt.Fprintf(stdout, "the state is in etcd at %s; every control process needs this directory's packages and key ring in its own\n",
			strings.Join(s.Etcd.Endpoints, ", "))
	}

	return f.placeKeyring(m, ring, stdout)
}

// restore writes what the archive holds.
func (f *restoreFlags) restore(ctx context.Context, s *settings, in io.Reader) (*backup.Manifest, error) {
	quiet := slog.New(slog.DiscardHandler)

	if len(s.Etcd.Endpoints) == 0 {
		return backup.Restore(ctx, in, f.data, quiet) //nolint:wrapcheck // the caller names the archive
	}

	b := &builder{system: &system{role: roleAll, settings: s, log: quiet}, ctx: ctx}
	defer b.close()

	if err := b.openEtcd(f.data); err != nil {
		return nil, err
	}

	reach, cancel := context.WithTimeout(ctx, etcdDialTimeout)
	defer cancel()

	if err := b.store.Ping(reach); err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}

	m, err := backup.RestoreShared(ctx, in, f.data, b.store, f.again)

	switch {
	case errors.Is(err, store.ErrUnfinished):
		return nil, fmt.Errorf("%w; if no restore is running any more, --again removes what it left and begins anew, into a new directory", err)
	case errors.Is(err, store.ErrNotEmpty):
		return nil, fmt.Errorf("%w; stop what uses it, and give an etcd or a prefix with nothing in it", err)
	default:
		return m, err //nolint:wrapcheck // the caller names the archive
	}
}

func (f *restoreFlags) placeKeyring(m *backup.Manifest, ring []byte, stdout io.Writer) error {
	path := filepath.Join(f.data, "keyring")

	switch {
	case m.HasKeyring() && ring != nil:
		return fmt.Errorf("--keyring: the backup has a key ring of its own, which is at %s now", path)
	case ring != nil:
		if err := atomicfile.Create(path, ring, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("--keyring: %w", err)
		}
	case !m.HasKeyring():
		_, _ = fmt.Fprintf(stdout, "the key ring is not in it: put it at %s, mode 0600, before sluice starts\n", path)
	}

	return nil
}
