package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/control/store"
)

// Format is the version of the archive that this release writes, and the newest that it reads.
const Format = 1

// Names in the archive.
const (
	manifestName  = "manifest.json"
	stateName     = "state.jsonl"
	keyringName   = "keyring"
	bootstrapName = "bootstrap.json"
	packagesDir   = "packages/sha256/"
)

const (
	maxManifestBytes = 256 << 20
	maxEntries       = 2_000_000
	maxRecordBytes   = 64 << 20
	what             = "sluice-backup"
)

// ErrDamaged means that an archive is not what Write made.
var ErrDamaged = errors.New("the backup is damaged")

// ErrNewer means that a newer release wrote an archive.
var ErrNewer = errors.New("the backup was written by a newer release")

// Manifest says what is in an archive.
type Manifest struct {
	What     string    `json:"what"`
	Format   int       `json:"format"`
	Created  time.Time `json:"created"`
	Revision int64     `json:"revision"` // of the state in etcd
	Records  int       `json:"records"`
	Models   int       `json:"models"` // with a package
	Files    []File    `json:"files"`  // in the order of the archive
}

// File is one file of an archive.
type File struct {
	Path   string      `json:"path"`
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
}

// HasKeyring reports whether the archive holds the keys to its secrets.
func (m *Manifest) HasKeyring() bool {
	for _, f := range m.Files {
		if f.Path == keyringName {
			return true
		}
	}

	return false
}

// Bytes is the size of all files together.
func (m *Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}

	return n
}

func parseManifest(data []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, damaged(manifestName, "%v", err)
	}

	if m.What != what || m.Format < 1 {
		return nil, fmt.Errorf("%w: this is no backup of Sluice", ErrDamaged)
	}

	if m.Format > Format {
		return nil, fmt.Errorf("%w: it has format %d, and this one reads up to %d", ErrNewer, m.Format, Format)
	}

	if len(m.Files) > maxEntries || len(m.Files) == 0 || m.Files[0].Path != stateName {
		return nil, damaged(manifestName, "it does not begin with %s, or names over %d files", stateName, maxEntries)
	}

	seen := make(map[string]bool, len(m.Files))

	for _, f := range m.Files {
		if !goodPath(f.Path) || f.Size < 0 || seen[f.Path] {
			return nil, damaged(manifestName, "it names the file %q, which cannot be in a backup, or twice", f.Path)
		}

		seen[f.Path] = true
	}

	return &m, nil
}

var packagePath = regexp.MustCompile(`^packages/sha256/[0-9a-f]{64}/.`)

// goodPath keeps what is unpacked inside the directory and to what a backup holds.
func goodPath(p string) bool {
	if p == stateName || p == keyringName || p == bootstrapName {
		return true
	}

	return packagePath.MatchString(p) && path.Clean(p) == p && filepath.IsLocal(filepath.FromSlash(p)) && !strings.ContainsAny(p, "\x00\n\\")
}

// damaged names the file of the archive that is wrong, and what about it.
func damaged(file, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrDamaged, file, fmt.Sprintf(format, args...))
}

// line is a record of the state in state.jsonl.
type line struct {
	Key     string     `json:"key"`
	Value   *string    `json:"value,omitempty"`
	Bytes   []byte     `json:"bytes,omitempty"` // instead of Value if that is no text
	Expires *time.Time `json:"expires,omitempty"`
}

func encodeLine(buf *bytes.Buffer, r store.Record) error {
	l := line{Key: r.Key}

	if utf8.Valid(r.Value) {
		l.Value = new(string(r.Value))
	} else {
		l.Bytes = r.Value
	}

	if !r.Expires.IsZero() {
		l.Expires = new(r.Expires.UTC())
	}

	if err := json.NewEncoder(buf).Encode(l); err != nil {
		return fmt.Errorf("encode %s: %w", r.Key, err)
	}

	return nil
}

func decodeLine(data []byte) (store.Record, error) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return store.Record{}, err //nolint:wrapcheck // the caller says where
	}

	r := store.Record{Key: l.Key, Value: l.Bytes}
	if l.Value != nil {
		r.Value = []byte(*l.Value)
	}

	if l.Expires != nil {
		r.Expires = *l.Expires
	}

	return r, store.CheckRecord(r) //nolint:wrapcheck // it names the key
}
