package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// Opener opens sealed secrets; internal/secretbox implements it.
type Opener interface {
	// Open returns a fresh copy of what was sealed in the same context.
	Open(sealed []byte, context string) ([]byte, error)
}

// Directory is the compiled form of the credentials and rights of a snapshot. It is immutable.
type Directory struct {
	revision   int64
	generation uint64 // unique in the process: what was checked against this very Directory

	users    *userSection
	keys     *keySection
	apps     *appSection
	services map[string]*service

	tokenKeys map[string]ed25519.PublicKey
	revoked   map[string]struct{}
}

// userSection holds users and projects, keySection and appSection the signing credentials. They
// are shared with the Directory before when their source did not change.
type userSection struct {
	source        []spec.User
	projectSource []spec.Project
	users         map[string]*user
	projects      map[string]*spec.Project
	problems      []error
}

type keySection struct {
	source   []spec.AccessKey
	users    *userSection
	keys     *keyTable
	problems []error
}

type appSection struct {
	source   []spec.App
	users    *userSection
	byKey    map[string]*app
	byCode   map[[sha256.Size]byte]*app
	problems []error
}

type user struct {
	spec   *spec.User
	any    *rights            // of grants for "*"
	rights map[string]*rights // by project
}

// accessKey holds what a request needs side by side.
type accessKey struct {
	name      keyName
	enabled   bool  // the key and its user
	expires   int64 // ms since the epoch; 0 means never
	tokenHash []byte
	key       sign.Key
	principal Principal

	sealed []byte // for the next Compile
}

type app struct {
	spec *spec.App
	key  *sign.Key
	// The same app by its three ways of authenticating.
	bySignature, byCode, byKey Principal
}

type service struct {
	auth  AuthSet
	codes bool
	apps  map[string]struct{}
}

// ErrNoSnapshot is returned by Compile without a snapshot.
var ErrNoSnapshot = errors.New("auth: no snapshot")

// maxProblems bounds how many broken entries a section remembers.
const maxProblems = 100

//nolint:gochecknoglobals // numbers the Directories of the process, so that caches can tell them apart
var generations atomic.Uint64

// Compile builds a Directory. A credential that is broken or cannot be opened is left out and
// told by Problems; everything else keeps working. box may be nil when the snapshot holds no
// sealed secrets. prev, which may be nil, saves opening secrets again.
func Compile(s *spec.Snapshot, box Opener, prev *Directory) (*Directory, error) {
	if s == nil {
		return nil, ErrNoSnapshot
	}

	if prev == nil {
		prev = &Directory{users: &userSection{}, keys: &keySection{}, apps: &appSection{}}
	}

	d := &Directory{
		revision:   s.Revision,
		generation: generations.Add(1),
		services:   make(map[string]*service, len(s.Services)),
		tokenKeys:  make(map[string]ed25519.PublicKey, len(s.TokenKeys)),
		revoked:    make(map[string]struct{}, len(s.Revocations)),
	}

	d.users = compileUsers(s, prev.users)
	d.keys = compileKeys(s.AccessKeys, box, d.users, prev.keys)
	d.apps = compileApps(s.Apps, box, d.users, prev.apps)

	for i := range s.Services {
		r := &s.Services[i]
		sv := &service{auth: ParseAuthSet(r.Policy.AuthTypes), codes: r.AppCodes, apps: make(map[string]struct{}, len(r.AppIDs))}

		for _, id := range r.AppIDs {
			sv.apps[id] = struct{}{}
		}

		d.services[r.ServiceID] = sv
	}

	for _, k := range s.TokenKeys {
		if len(k.PublicKey) == ed25519.PublicKeySize {
			d.tokenKeys[k.ID] = bytes.Clone(k.PublicKey)
		}
	}

	for _, r := range s.Revocations {
		d.revoked[r.TokenID] = struct{}{}
	}

	return d, nil
}

// Revision is the revision of the snapshot.
func (d *Directory) Revision() int64 { return d.revision }

// Problems tells what Compile left out, at most some hundred entries.
func (d *Directory) Problems() []error {
	return slices.Concat(d.users.problems, d.keys.problems, d.apps.problems)
}

// ServiceAuth is the set of ways of authenticating of a service; zero for an unknown service.
func (d *Directory) ServiceAuth(serviceID string) AuthSet {
	if s := d.services[serviceID]; s != nil {
		return s.auth
	}

	return 0
}

func compileUsers(s *spec.Snapshot, prev *userSection) *userSection {
	if prev.users != nil && slices.EqualFunc(s.Users, prev.source, equalUser) && slices.Equal(s.Projects, prev.projectSource) {
		return prev
	}

	u := &userSection{
		source: s.Users, projectSource: s.Projects,
		users: make(map[string]*user, len(s.Users)), projects: make(map[string]*spec.Project, len(s.Projects)),
	}

	for i := range s.Projects {
		u.projects[s.Projects[i].ID] = &s.Projects[i]
	}

	for i := range s.Users {
		su := &s.Users[i]
		if old := prev.users[su.ID]; old != nil && equalUser(*su, *old.spec) {
			u.users[su.ID] = old

			continue
		}

		compiled, err := compileUser(su)
		u.users[su.ID] = compiled
		u.problems = report(u.problems, "user", su.ID, err)
	}

	return u
}

func compileUser(su *spec.User) (*user, error) {
	u := &user{spec: su}

	var problems []error

	for i := range su.Grants {
		g := &su.Grants[i]

		var r **rights

		if g.ProjectID == "*" {
			r = &u.any
		} else {
			if u.rights == nil {
				u.rights = make(map[string]*rights)
			}

			slot := u.rights[g.ProjectID]
			r = &slot
		}

		if *r == nil {
			*r = &rights{}
		}

		if err := (*r).add(g); err != nil {
			problems = append(problems, fmt.Errorf("grant for project %q: %w", g.ProjectID, err))
		}

		if g.ProjectID != "*" {
			u.rights[g.ProjectID] = *r
		}
	}

	return u, errors.Join(problems...)
}

func compileKeys(source []spec.AccessKey, box Opener, users *userSection, prev *keySection) *keySection {
	if prev.users == users && slices.EqualFunc(source, prev.source, equalAccessKey) && len(prev.problems) == 0 {
		return prev
	}

	k := &keySection{source: source, users: users}
	entries, names := make([]accessKey, len(source)), make([]string, len(source))

	for i := range source {
		ak := &source[i]

		u := users.users[ak.UserID]
		if u == nil {
			k.problems = report(k.problems, "access key", ak.AccessKey, errors.New("its user does not exist"))

			continue
		}

		entry := &entries[i]
		*entry = accessKey{
			enabled: ak.Enabled && u.spec.Enabled, expires: ak.ExpiresAt, tokenHash: ak.SecurityTokenHash,
			principal: keyPrincipal(ak, u.spec), sealed: ak.SealedSecret,
		}

		if old := prev.keys.find([]byte(ak.AccessKey)); old != nil && bytes.Equal(old.sealed, ak.SealedSecret) {
			entry.key = old.key
		} else {
			key, err := open(box, ak.SealedSecret, SecretKeyContext(ak.AccessKey))
			if err != nil {
				k.problems = report(k.problems, "access key", ak.AccessKey, err)

				continue
			}

			entry.key = *key
		}

		names[i] = ak.AccessKey
	}

	k.keys = newKeyTable(entries, names)

	return k
}

func keyPrincipal(ak *spec.AccessKey, u *spec.User) Principal {
	return Principal{
		Method: MethodAKSK, DomainID: u.DomainID, ProjectID: ak.ProjectID, UserID: u.ID, UserName: u.Name,
		AccessKey: ak.AccessKey, Key: userKey(u.ID), ExpiresAt: milliTime(ak.ExpiresAt),
	}
}

func compileApps(source []spec.App, box Opener, users *userSection, prev *appSection) *appSection {
	if prev.users == users && slices.EqualFunc(source, prev.source, equalApp) && len(prev.problems) == 0 {
		return prev
	}

	a := &appSection{source: source, users: users, byKey: make(map[string]*app, len(source)), byCode: make(map[[sha256.Size]byte]*app)}

	for i := range source {
		sa := &source[i]
		entry := &app{spec: sa}

		p := Principal{ProjectID: sa.ProjectID, UserID: sa.UserID, AppID: sa.ID, Key: appKey(sa.ID)}
		if project := users.projects[sa.ProjectID]; project != nil {
			p.DomainID = project.DomainID
		}

		entry.bySignature, entry.byCode, entry.byKey = p, p, p
		entry.bySignature.Method, entry.byCode.Method, entry.byKey.Method = MethodAppSignature, MethodAppCode, MethodAppKey

		if old := prev.byKey[sa.Key]; old != nil && old.spec.ID == sa.ID && bytes.Equal(old.spec.SealedSecret, sa.SealedSecret) {
			entry.key = old.key
		} else {
			// Without its secret an app can still be called by code.
			var err error
			entry.key, err = open(box, sa.SealedSecret, AppSecretContext(sa.ID))
			a.problems = report(a.problems, "app", sa.ID, err)
		}

		a.byKey[sa.Key] = entry

		for _, c := range sa.Codes {
			if len(c.Hash) == sha256.Size {
				a.byCode[[sha256.Size]byte(c.Hash)] = entry
			}
		}
	}

	return a
}

func open(box Opener, sealed []byte, context string) (*sign.Key, error) {
	if box == nil {
		return nil, errors.New("no keyring to open its secret")
	}

	secret, err := box.Open(sealed, context)
	if err != nil {
		return nil, fmt.Errorf("open its secret: %w", err)
	}

	if len(secret) == 0 {
		return nil, errors.New("its secret is empty")
	}

	key := sign.NewKey(secret)
	clear(secret)

	return key, nil
}

func report(problems []error, kind, id string, err error) []error {
	if err == nil || len(problems) >= maxProblems {
		return problems
	}

	return append(problems, fmt.Errorf("%s %s: %w", kind, id, err))
}

func userKey(id string) string { return "user:" + id }
func appKey(id string) string  { return "app:" + id }

func equalUser(a, b spec.User) bool {
	return a.ID == b.ID && a.Name == b.Name && a.DomainID == b.DomainID && a.Enabled == b.Enabled &&
		a.TokensValidFrom == b.TokensValidFrom && a.TokenGeneration == b.TokenGeneration && slices.EqualFunc(a.Grants, b.Grants, equalGrant)
}

func equalGrant(a, b spec.Grant) bool {
	return a.ProjectID == b.ProjectID && a.Role == b.Role &&
		slices.EqualFunc(a.Statements, b.Statements, func(x, y spec.Statement) bool {
			return x.Effect == y.Effect && slices.Equal(x.Actions, y.Actions) && slices.Equal(x.Resources, y.Resources)
		})
}

func equalAccessKey(a, b spec.AccessKey) bool {
	return a.AccessKey == b.AccessKey && a.UserID == b.UserID && a.ProjectID == b.ProjectID &&
		a.ExpiresAt == b.ExpiresAt && a.Enabled == b.Enabled &&
		bytes.Equal(a.SealedSecret, b.SealedSecret) && bytes.Equal(a.SecurityTokenHash, b.SecurityTokenHash)
}

func equalApp(a, b spec.App) bool {
	return a.ID == b.ID && a.Key == b.Key && a.ProjectID == b.ProjectID && a.UserID == b.UserID && a.Enabled == b.Enabled &&
		bytes.Equal(a.SealedSecret, b.SealedSecret) &&
		slices.EqualFunc(a.Codes, b.Codes, func(x, y spec.AppCode) bool { return bytes.Equal(x.Hash, y.Hash) })
}
