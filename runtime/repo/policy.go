package repo

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
)

// Policy says which versions of a model serve. Its zero value allows all.
type Policy struct {
	// Latest, when positive, allows that many of the newest versions.
	Latest int
	// Specific, when not empty, allows these versions only.
	Specific []string
}

// CompareVersions orders version names by their parts between dots: by the number that a part
// begins with, then by what follows it, where something that begins with a dash comes before
// nothing. So 10 comes after 9, and 1.0.9-rc before 1.0.9. Parts without a number come last.
func CompareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y string

		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")

		if c := comparePart(x, y); c != 0 {
			return c
		}
	}

	return 0
}

func comparePart(x, y string) int {
	if x == "" || y == "" {
		return cmp.Compare(len(x), len(y))
	}

	xn, yn := strings.TrimLeft(x, "0123456789"), strings.TrimLeft(y, "0123456789")
	numX, numY := x[:len(x)-len(xn)], y[:len(y)-len(yn)]

	if (numX == "") != (numY == "") {
		return cmp.Compare(len(numY), len(numX))
	}

	numX, numY = strings.TrimLeft(numX, "0"), strings.TrimLeft(numY, "0")
	rank := func(rest string) int {
		switch {
		case strings.HasPrefix(rest, "-"):
			return 0
		case rest == "":
			return 1
		default:
			return 2
		}
	}

	return cmp.Or(cmp.Compare(len(numX), len(numY)), cmp.Compare(numX, numY),
		cmp.Compare(rank(xn), rank(yn)), cmp.Compare(xn, yn))
}

func (r *Repo) policy(name string) Policy {
	if p, ok := r.cfg.Policies[name]; ok {
		return p
	}

	return r.cfg.Policy
}

// allowed reports whether the policy lets v serve. Caller holds mu.
func (r *Repo) allowed(v *version) bool {
	p := r.policy(v.src.Name)
	if len(p.Specific) > 0 {
		return slices.Contains(p.Specific, v.src.Version)
	}

	if p.Latest <= 0 {
		return true
	}

	newer := 0

	for _, o := range r.models[v.src.Name] {
		// A version that cannot be loaded must not push out one that serves.
		if o != v && o.state != Failed && CompareVersions(o.src.Version, v.src.Version) > 0 {
			newer++
		}
	}

	return newer < p.Latest
}

// enforce unloads, in the background, what the policy does not allow any more.
func (r *Repo) enforce(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	life := r.life
	if life == nil {
		return
	}

	for _, v := range r.models[name] {
		if v.current == nil || r.allowed(v) {
			continue
		}

		r.wg.Go(func() {
			if err := r.unload(life, v, asideReason); err != nil && life.Err() == nil {
				r.log.Error("unload of an old version failed", slog.Any("model", name), slog.Any("version", v.src.Version), slog.Any("error", err))
			}
		})
	}
}

const asideReason = "not allowed by the version policy"

// aside puts v aside if the policy does not allow it. Caller holds mu.
func (r *Repo) aside(v *version) bool {
	if r.allowed(v) {
		return false
	}

	if v.current == nil {
		r.set(v, Unloaded, asideReason)
	}

	return true
}

// Forget takes a version that is unloaded out of the index, with what is kept of it. Any other version is
// left alone: one that serves, is being loaded, or has failed and says why.
func (r *Repo) Forget(name, number string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	v := r.models[name][number]
	if v == nil || v.state != Unloaded || v.current != nil || v.loads > 0 {
		return
	}

	v.forgotten = true

	delete(r.models[name], number)

	if len(r.models[name]) == 0 {
		delete(r.models, name)
	}

	if r.hooks.Forgotten != nil {
		r.hooks.Forgotten(name, number)
	}
}

// loadBegins counts a load, so that v is not forgotten before it ends. Caller holds mu.
func (r *Repo) loadBegins(v *version) {
	if v.current == nil {
		r.set(v, Queued, "")
	}

	v.loads++
}

// loadEnded ends a load that was counted.
func (r *Repo) loadEnded(v *version) {
	r.mu.Lock()
	defer r.mu.Unlock()

	v.loads--
}

// wait returns when Run has started or ctx ended.
func (r *Repo) wait(ctx context.Context) error {
	select {
	case <-r.started:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller says what it waited for
	}
}
