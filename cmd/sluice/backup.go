package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/control/backup"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

type backupFlags struct {
	config, data, output string
	withKeyring          bool
}

func backupCommand() *cobra.Command {
	var f backupFlags

	cmd := &cobra.Command{
		Use: "backup", Args: cobra.NoArgs,
		Short: "Write everything that a data directory holds into one file, also while sluice runs",
		Example: `  sluice backup --data data --output sluice-backup.tar.gz
  sluice backup --config control.yaml --output sluice-backup.tar.gz --with-keyring`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}

	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "configuration file, for data_dir, keyring and etcd")
	fl.StringVar(&f.data, "data", "", "data directory (default: data_dir of the configuration)")
	fl.StringVar(&f.output, "output", "", "file to write; it must not exist")
	fl.BoolVar(&f.withKeyring, "with-keyring", false, "include the key ring and the bootstrap file: whoever has the archive can then open its secrets")
	must(cmd.MarkFlagRequired("output"))

	return cmd
}

// must is for registrations that can only fail by a mistake in this package.
func must(err error) {
	if err != nil {
		panic("BUG: " + err.Error())
	}
}

func (f *backupFlags) run(ctx context.Context, stdout io.Writer) error {
	s := defaultSettings()

	sf := serveFlags{config: f.config, data: f.data}
	if err := sf.apply(&s); err != nil {
		return usageError{err}
	}

	if _, err := os.Lstat(f.output); err == nil {
		return fmt.Errorf("--output: %s exists already", f.output)
	}

	out, err := os.CreateTemp(filepath.Dir(f.output), "."+filepath.Base(f.output)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}

	m, err := f.fill(ctx, &s, out)
	if err = errors.Join(err, out.Sync(), out.Close()); err == nil {
		err = os.Rename(out.Name(), f.output)
	}

	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}

	if err := atomicfile.SyncDir(filepath.Dir(f.output)); err != nil {
		return err //nolint:wrapcheck // it says what it did
	}

	_, _ = fmt.Fprintf(stdout, "%s: state at revision %d (%d records), %d models, %d files, %d bytes before compression\n",
		f.output, m.Revision, m.Records, m.Models, len(m.Files), m.Bytes())

	if !m.HasKeyring() {
		_, _ = fmt.Fprintf(stdout, "the key ring is not in it; keep %s in a safe place of its own, secrets are lost without it\n", s.keyring())
	}

	return nil
}

// fill writes the archive, and reads it again.
func (f *backupFlags) fill(ctx context.Context, s *settings, out *os.File) (*backup.Manifest, error) {
	if err := f.write(ctx, s, out); err != nil {
		return nil, err
	}

	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the archive again: %w", err)
	}

	m, err := backup.Verify(ctx, out)
	if err != nil {
		return nil, fmt.Errorf("read the archive again: %w", err)
	}

	return m, nil
}

// write asks the process that uses the data directory; if there is none, it reads it itself.
func (f *backupFlags) write(ctx context.Context, s *settings, out io.Writer) error {
	if door := adminDoor(s.DataDir); door != "" {
		err := f.online(ctx, door, out)
		if !errors.Is(err, errNobody) {
			return err
		}
	}

	if _, err := os.Stat(s.DataDir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}

	b := &builder{
		system: &system{role: roleAll, settings: s, log: slog.New(slog.DiscardHandler)}, ctx: ctx,
	}
	defer b.close()

	if len(s.Etcd.Endpoints) == 0 {
		if _, err := os.Stat(filepath.Join(s.DataDir, "etcd")); err != nil {
			return fmt.Errorf("%s is no data directory of sluice: %w", s.DataDir, err)
		}
	}

	err := b.openEtcd(s.DataDir)
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("the process that uses %s does not answer yet, or any more: %w", s.DataDir, err)
	}

	if err != nil {
		return err
	}

	packages, err := openPackages(s)
	if err != nil {
		return err
	}

	src := backup.Source{Store: b.store, Packages: packages}
	if f.withKeyring {
		src.Keyring, src.Bootstrap = s.keyring(), filepath.Join(s.DataDir, bootstrapFile)
	}

	_, err = backup.Write(ctx, out, src)

	return err //nolint:wrapcheck // it says what it did
}

// adminDoor is the socket of the process that uses a data directory; "" if none was announced.
func adminDoor(data string) string {
	raw, err := os.ReadFile(filepath.Join(data, endpointsFile))
	if err != nil {
		return ""
	}

	var endpoints struct {
		Admin string `json:"admin"`
	}

	if json.Unmarshal(raw, &endpoints) != nil {
		return ""
	}

	return strings.TrimPrefix(endpoints.Admin, "unix:")
}

// errNobody means that no process listens any more.
var errNobody = errors.New("nobody listens")

func (f *backupFlags) online(ctx context.Context, door string, out io.Writer) error {
	dialer := new(net.Dialer)

	conn, err := dialer.DialContext(ctx, "unix", door)
	if err != nil {
		return errNobody
	}

	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	defer transport.CloseIdleConnections()

	url := "http://sluice/backup"
	if f.withKeyring {
		url += "?keyring=true"
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask for a backup: %w", err)
	}

	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask for a backup: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end

	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("receive the backup: %w", err)
	}

	switch result := resp.Trailer.Get(trailerResult); {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("ask for a backup: status %d", resp.StatusCode)
	case result == "":
		return errors.New("receive the backup: the process ended before it was complete")
	case result != resultDone:
		return errors.New(result)
	default:
		return nil
	}
}
