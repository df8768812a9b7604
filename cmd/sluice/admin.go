package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/control/backup"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
)

// adminSocket is the door for the user who runs the process, in a directory that only that
// user can enter.
const adminSocket = "admin.sock"

// The backup ends with this trailer; a client that does not see it has a part only.
const (
	trailerResult = "Sluice-Backup"
	resultDone    = "done"
)

// admin is that door.
type admin struct {
	source backup.Source
	log    *slog.Logger
	ln     net.Listener
	server *http.Server
}

// listenAdmin opens the door in dir.
func (b *builder) listenAdmin(dir string) error {
	ln, err := new(net.ListenConfig).Listen(b.ctx, "unix", filepath.Join(dir, adminSocket))
	if err != nil {
		return fmt.Errorf("open the admin door: %w", err)
	}

	a := &admin{source: b.backupSource(), log: b.log, ln: ln}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /backup", a.backup)

	a.server = web.NewServer(mux, b.log)
	// An archive of many packages takes long; its client is on this machine and trusted.
	a.server.WriteTimeout = 0

	b.admin = "unix:" + ln.Addr().String()
	b.closers = append(b.closers, func() { ln.Close() }) //nolint:errcheck // closed by the server already
	b.group.Add("admin door", a.run)

	return nil
}

// backupSource is all that this process keeps.
func (b *builder) backupSource() backup.Source {
	return backup.Source{
		Store: b.store, Packages: b.packages, Hold: b.control.registry.Hold,
		Keyring: b.settings.keyring(), Bootstrap: filepath.Join(b.settings.DataDir, bootstrapFile),
	}
}

func (a *admin) backup(w http.ResponseWriter, r *http.Request) {
	src := a.source
	if r.URL.Query().Get("keyring") != "true" {
		src.Keyring, src.Bootstrap = "", ""
	}

	w.Header().Set("Trailer", trailerResult)
	w.Header().Set("Content-Type", "application/gzip")

	began := time.Now()

	m, err := backup.Write(r.Context(), w, src)
	if err != nil {
		a.log.Error("backup failed", slog.Any("error", err))
		w.Header().Set(trailerResult, err.Error())

		return
	}

	a.log.Info("backup written", slog.Int64("revision", m.Revision), slog.Int("records", m.Records),
		slog.Int("files", len(m.Files)), slog.Bool("keyring", m.HasKeyring()), slog.Duration("took", time.Since(began)))
	w.Header().Set(trailerResult, resultDone)
}

// run serves until ctx ends; a backup under way is cut off then.
func (a *admin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { a.server.Close() }) //nolint:errcheck // Serve tells
	defer stop()

	if err := a.server.Serve(a.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin door: %w", err)
	}

	return nil
}

// openPackages opens the package store of a data directory.
func openPackages(s *settings) (*pkgstore.Store, error) {
	packages, err := pkgstore.New(pkgstore.Config{Dir: filepath.Join(s.DataDir, "packages")})
	if err != nil {
		return nil, fmt.Errorf("open the package store: %w", err)
	}

	return packages, nil
}
