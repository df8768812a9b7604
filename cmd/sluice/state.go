package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/secretbox"
)

// etcdDialTimeout bounds one attempt to connect to an external etcd.
const etcdDialTimeout = 5 * time.Second

// These bound the wait between attempts to connect to an external etcd.
const (
	etcdMinRetry = 100 * time.Millisecond
	etcdMaxRetry = 500 * time.Millisecond
)

// state opens the data directory: keys and etcd.
func (b *builder) state() error {
	dir := b.settings.DataDir
	if err := lockedDir(dir); err != nil {
		return err
	}

	// An earlier process may have left its addresses; whoever waits for ours must not see them.
	if err := os.Remove(filepath.Join(dir, endpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory: %w", err)
	}

	if err := b.openEtcd(dir); err != nil {
		return err
	}

	if err := b.finished(); err != nil {
		return err
	}

	return b.openKeyring()
}

// finished makes sure that control does not begin to use a state that a restore is writing.
func (b *builder) finished() error {
	if b.role != roleControl {
		return nil // gateways only read, and start without etcd too
	}

	ctx, cancel := context.WithTimeout(b.ctx, etcdDialTimeout)
	defer cancel()

	err := b.store.Unfinished(ctx)
	if errors.Is(err, store.ErrUnfinished) {
		return fmt.Errorf("%w; wait for its end, or restore again: sluice restore --again", err)
	}

	if err != nil {
		b.log.Warn("the state does not answer yet", slog.Any("error", err))
	}

	return nil
}

func (b *builder) openEtcd(dir string) error {
	prefix := b.settings.Etcd.Prefix
	if prefix == "" {
		prefix = store.DefaultPrefix
	}

	if len(b.settings.Etcd.Endpoints) > 0 {
		cli, err := b.settings.Etcd.client(b.ctx, b.log)
		if err != nil {
			return err
		}

		b.etcd = cli
		b.closers = append(b.closers, func() { cli.Close() }) //nolint:errcheck // nothing is under way any more
		b.store = store.New(cli, prefix)

		return nil
	}

	if b.role != roleAll {
		return fmt.Errorf("etcd.endpoints: %s shares its state with others and needs an etcd beside it", b.role)
	}

	embedded, err := store.StartEmbedded(b.ctx, store.EmbeddedConfig{Dir: filepath.Join(dir, "etcd")}, b.log)
	if err != nil {
		err = fmt.Errorf("open the state in %s: %w", dir, err)
		if errors.Is(err, store.ErrDamaged) {
			err = damagedError{err}
		}

		return err
	}

	b.embedded = embedded
	b.closers = append(b.closers, embedded.Close)
	b.store = store.New(embedded.Client(), prefix)

	if err := b.store.Check(b.ctx); err != nil {
		return damagedError{fmt.Errorf("read the state in %s: %w", dir, err)}
	}

	return nil
}

// openKeyring loads the keys; only a process with a state of its own makes them.
func (b *builder) openKeyring() error {
	path, load := b.settings.keyring(), secretbox.Load

	used, err := b.stateUsed()
	if err != nil {
		return err
	}

	// A new key ring would open none of the secrets that are there.
	if b.role == roleAll && !used {
		load = secretbox.LoadOrCreate
	}

	ring, err := load(path)
	if err != nil {
		return damagedError{fmt.Errorf("open the key ring: %w", err)}
	}

	b.ring = ring
	b.peers, err = authority(ring)

	return err
}

// client connects to an external etcd; it does not wait until that answers.
func (e *etcdSettings) client(ctx context.Context, log *slog.Logger) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: e.Endpoints, Context: ctx, DialTimeout: etcdDialTimeout,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second, Username: e.Username,
		// gRPC would wait for up to two minutes between attempts; who follows that late chooses instances
		// that an upgrade has ended meanwhile.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: etcdMinRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: etcdMaxRetry},
			MinConnectTimeout: etcdDialTimeout,
		})},
	}

	if e.PasswordFile != "" {
		password, err := os.ReadFile(e.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.password_file: %w", err)
		}

		cfg.Password = strings.TrimSpace(string(password))
	}

	tlsConf, err := e.tls()
	if err != nil {
		return nil, err
	}

	cfg.TLS = tlsConf

	cli, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}

	log.Info("using an external etcd", slog.Any("endpoints", e.Endpoints))

	return cli, nil
}

func (e *etcdSettings) tls() (*tls.Config, error) {
	if e.CACert == "" && e.Cert == "" {
		return nil, nil //nolint:nilnil // what the scheme of the endpoints says is enough
	}

	conf := &tls.Config{MinVersion: tls.VersionTLS12}

	if e.CACert != "" {
		pem, err := os.ReadFile(e.CACert)
		if err != nil {
			return nil, fmt.Errorf("etcd.ca_cert: %w", err)
		}

		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("etcd.ca_cert: no certificate in it")
		}
	}

	if e.Cert != "" {
		pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
		if err != nil {
			return nil, fmt.Errorf("etcd.cert: %w", err)
		}

		conf.Certificates = []tls.Certificate{pair}
	}

	return conf, nil
}
