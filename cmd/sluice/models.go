package main

import (
	"errors"
	"path/filepath"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
)

// modelSettings is about publishing models.
type modelSettings struct {
	// SourceRoots are the directories that packages may come from; empty means any but the data directory.
	SourceRoots []string `yaml:"source_roots"`
	// AllowPrivate permits http and https sources on private and loopback addresses.
	AllowPrivate bool `yaml:"allow_private"`
	// MaxBytes bounds what is fetched, and what it unpacks to; default 64GiB.
	MaxBytes config.ByteSize `yaml:"max_bytes"`
	// FetchTimeout is for one package in all (default 6h), IdleTimeout for the time in which nothing comes (60s).
	FetchTimeout config.Duration `yaml:"fetch_timeout"`
	IdleTimeout  config.Duration `yaml:"idle_timeout"`
	// CacheBytes is how much of packages that no model refers to is kept; 0 keeps nothing.
	CacheBytes config.ByteSize `yaml:"cache_bytes"`
	S3         s3Settings      `yaml:"s3"`
}

// s3Settings are the object storage of s3:// and obs://.
type s3Settings struct {
	Endpoint      string `yaml:"endpoint"` // https://host[:port]
	Region        string `yaml:"region"`
	PathStyle     bool   `yaml:"path_style"`
	AccessKeyFile string `yaml:"access_key_file"`
	SecretKeyFile string `yaml:"secret_key_file"`
	CACert        string `yaml:"ca_cert"`
}

func (m *modelSettings) validate() error {
	var errs []error

	if m.MaxBytes < 0 || m.CacheBytes < 0 {
		errs = append(errs, config.At("max_bytes", "max_bytes and cache_bytes must not be negative"))
	}

	if m.FetchTimeout < 0 || m.IdleTimeout < 0 {
		errs = append(errs, config.At("fetch_timeout", "fetch_timeout and idle_timeout must not be negative"))
	}

	s3 := pkgsource.S3Config(m.S3)
	if err := s3.Validate(); err != nil {
		errs = append(errs, config.At("s3", "%s", err))
	}

	return errors.Join(errs...)
}

// fetch is how packages come from elsewhere.
func (s *settings) fetch() pkgsource.Config {
	m := &s.Models

	return pkgsource.Config{
		Dir: filepath.Join(s.DataDir, "packages", "fetch"), MaxBytes: int64(m.MaxBytes), AllowPrivate: m.AllowPrivate,
		Timeout: m.FetchTimeout.D(), IdleTimeout: m.IdleTimeout.D(), S3: pkgsource.S3Config(m.S3),
	}
}
