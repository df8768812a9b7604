package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	maxCodes  = 5 // of an app
	maxRemark = 200
	masked    = "******"
)

type appIn struct {
	Name        *string `json:"app_name"`
	Remark      *string `json:"app_remark"`
	WorkspaceID *string `json:"workspace_id"`
}

// appView is an app. The secret is shown when it is made, and to who asks for it in clear.
type appView struct {
	AppID       string   `json:"app_id"`
	Name        string   `json:"app_name"`
	Remark      string   `json:"app_remark"`
	Key         string   `json:"app_key"`
	Secret      string   `json:"app_secret"`
	Codes       []string `json:"app_codes"`
	Type        string   `json:"app_type"`
	BoundAPIs   int      `json:"bounded_api_count"`
	ProjectID   string   `json:"project_id"`
	UserID      string   `json:"user_id"`
	WorkspaceID string   `json:"workspace_id"`
	CreatedAt   int64    `json:"created_at"`
	UpdatedAt   int64    `json:"updated_at"`
}

func (a *API) viewApp(app *spec.App, bound int, show clearFor) (appView, error) {
	v := appView{
		AppID: app.ID, Name: app.Name, Remark: app.Remark, Key: app.Key, Secret: masked, Codes: []string{},
		Type: "APIG", BoundAPIs: bound, ProjectID: app.ProjectID, UserID: app.UserID,
		WorkspaceID: orZero(app.WorkspaceID), CreatedAt: app.CreatedAt, UpdatedAt: app.UpdatedAt,
	}

	if show.show(app.ID) {
		plain, err := a.d.Ring.Open(app.SealedSecret, auth.AppSecretContext(app.ID))
		if err != nil {
			return v, fmt.Errorf("open the secret of app %s: %w", app.ID, err)
		}

		v.Secret = string(plain)
	}

	for i := range app.Codes {
		plain, err := a.d.Ring.Open(app.Codes[i].SealedCode, auth.AppCodeContext(app.ID))
		if err != nil {
			return v, fmt.Errorf("open a code of app %s: %w", app.ID, err)
		}

		v.Codes = append(v.Codes, string(plain))
	}

	return v, nil
}

func (a *API) answerApp(r *web.Request, app *spec.App, show clearFor) (any, error) {
	bound, err := a.boundAPIs(r.Context(), app.ID)
	if err != nil {
		return nil, err
	}

	v, err := a.viewApp(app, len(bound), show)

	return map[string]any{"app": v}, err
}

// boundAPIs lists the published APIs that an app may call.
func (a *API) boundAPIs(ctx context.Context, appID string) ([]spec.AppAPI, error) {
	all, _, err := a.st.AppAPIs.Values(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("list app APIs: %w", err)
	}

	return slices.DeleteFunc(all, func(api spec.AppAPI) bool { return !slices.Contains(api.AppIDs, appID) }), nil
}

// overseer reports whether the caller sees the apps of others: administrators do.
func (a *API) overseer(r *web.Request) bool {
	return r.Authorize(auth.ActionUserList, "", "") == nil
}

// app reads the app in the path. Apps of others do not exist, except for administrators.
func (a *API) app(r *web.Request) (store.Item[spec.App], error) {
	id := r.Var("app_id")
	missing := web.NotFound("app", id)

	if !isHex(id) {
		return store.Item[spec.App]{}, missing
	}

	it, err := a.st.Apps.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && it.Value.ProjectID != project(r) {
		return it, missing
	}

	if err != nil {
		return it, fmt.Errorf("read app: %w", err)
	}

	if it.Value.UserID != r.Principal.UserID && !a.overseer(r) {
		return it, missing
	}

	return it, nil
}

func (a *API) createApp(r *web.Request) (any, error) {
	var in appIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	var m mistakes

	if in.Name == nil || *in.Name == "" {
		m.required("app_name")
	} else if err := spec.ValidateServiceName(*in.Name); err != nil {
		m.addf("app_name", "%s", err)
	}

	if utf8.RuneCountInString(value(in.Remark)) > maxRemark {
		m.addf("app_remark", "must have at most %d characters", maxRemark)
	}

	if err := web.Invalid(m.errs...); err != nil {
		return nil, err
	}

	apps, _, err := a.st.Apps.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("create app: %w", err)
	}

	own := 0

	for i := range apps {
		if apps[i].UserID == r.Principal.UserID && apps[i].ProjectID == project(r) {
			own++
		}
	}

	if own >= a.cfg.AppsPerUser {
		return nil, fault.New(fault.QuotaExceeded, "A user may have at most %d apps.", a.cfg.AppsPerUser)
	}

	now := a.nowMillis()
	app := spec.App{
		ID: randomHex(16), Name: *in.Name, Remark: value(in.Remark), ProjectID: project(r), UserID: r.Principal.UserID,
		WorkspaceID: value(in.WorkspaceID), Key: randomHex(16), Enabled: true, CreatedAt: now, UpdatedAt: now,
	}
	app.SealedSecret = a.d.Ring.Seal([]byte(randomHex(16)), auth.AppSecretContext(app.ID))

	_, err = a.st.Commit(r.Context(), a.st.Index.CreateOp(appIndex(&app), app.ID), a.st.Apps.CreateOp(app.ID, app),
		a.st.Projects.ExistsOp(app.ProjectID, 0))
	if errors.Is(err, store.ErrExists) {
		return nil, fault.New(fault.ObjectExists, "The app %s already exists.", app.Name)
	}

	if err != nil {
		return nil, fmt.Errorf("create app: %w", err)
	}

	return a.answerApp(r, &app, clearFor{all: true})
}

func appIndex(app *spec.App) string {
	return store.IndexKey(store.IndexApp, app.ProjectID, app.Name)
}

// clearFor tells for which apps a list shows secrets.
type clearFor struct {
	all bool
	ids []string
}

// readInClear reads the two parameters; the platform spells the first one so.
func readInClear(q *web.Query) clearFor {
	c := clearFor{all: q.Bool("iphertext_enabled")}
	if ids := q.String("app_ids"); ids != "" && c.all {
		c.all, c.ids = false, strings.Split(ids, ",")
	}

	return c
}

func (c *clearFor) show(id string) bool { return c.all || slices.Contains(c.ids, id) }

// appQuery is what lists of apps ask for.
type appQuery struct {
	name, sortBy, order, workspace string
	page                           web.Page
	clear                          clearFor
}

func readAppQuery(r *web.Request) (appQuery, *web.Query) {
	q := r.Query()

	return appQuery{
		name: q.String("app_name"), workspace: q.String("workspace_id"),
		sortBy: q.Enum("sort_by", "app_name", "app_name", "created_at", "updated_at"),
		order:  q.Enum("order", "asc", "asc", "desc"), page: q.Page(), clear: readInClear(q),
	}, q
}

// visibleApps lists the apps that the caller may see, sorted.
func (a *API) visibleApps(r *web.Request, f *appQuery) ([]spec.App, error) {
	apps, _, err := a.st.Apps.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list apps: %w", err)
	}

	all := a.overseer(r)
	apps = slices.DeleteFunc(apps, func(app spec.App) bool {
		return app.ProjectID != project(r) || !all && app.UserID != r.Principal.UserID ||
			!strings.Contains(strings.ToLower(app.Name), strings.ToLower(f.name)) ||
			f.workspace != "" && orZero(app.WorkspaceID) != f.workspace
	})

	slices.SortFunc(apps, func(x, y spec.App) int {
		var c int

		switch f.sortBy {
		case "created_at":
			c = cmp.Compare(x.CreatedAt, y.CreatedAt)
		case "updated_at":
			c = cmp.Compare(x.UpdatedAt, y.UpdatedAt)
		}

		c = cmp.Or(c, strings.Compare(x.Name, y.Name))
		if f.order == "desc" {
			c = -c
		}

		return c
	})

	return apps, nil
}

func (a *API) listApps(r *web.Request) (any, error) {
	f, q := readAppQuery(r)
	if err := q.Err(); err != nil {
		return nil, err
	}

	apps, err := a.visibleApps(r, &f)
	if err != nil {
		return nil, err
	}

	bound, err := a.countBound(r.Context())
	if err != nil {
		return nil, err
	}

	views := []appView{}

	for _, app := range web.Cut(f.page, apps) {
		v, err := a.viewApp(&app, bound[app.ID], f.clear)
		if err != nil {
			return nil, err
		}

		views = append(views, v)
	}

	return map[string]any{"apps": views, "count": len(views), "total_count": len(apps)}, nil
}

// countBound counts published APIs by app.
func (a *API) countBound(ctx context.Context) (map[string]int, error) {
	apis, _, err := a.st.AppAPIs.Values(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("list app APIs: %w", err)
	}

	out := make(map[string]int)

	for i := range apis {
		for _, id := range apis[i].AppIDs {
			out[id]++
		}
	}

	return out, nil
}

func (a *API) showApp(r *web.Request) (any, error) {
	q := r.Query()
	show := clearFor{all: q.Bool("iphertext_enabled")}

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.app(r)
	if err != nil {
		return nil, err
	}

	return a.answerApp(r, &it.Value, show)
}

func (a *API) appExists(r *web.Request) (any, error) {
	_, err := a.st.Index.Get(r.Context(), store.IndexKey(store.IndexApp, project(r), r.Var("app_id")))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("look for an app: %w", err)
	}

	return map[string]bool{"exists": err == nil}, nil
}

func (a *API) deleteApp(r *web.Request) (any, error) {
	it, err := a.app(r)
	if err != nil {
		return nil, err
	}

	bound, err := a.boundAPIs(r.Context(), it.ID)
	if err != nil {
		return nil, err
	}

	if len(bound) > 0 {
		return nil, fault.New(fault.Conflict, "The app is authorised to call %d APIs; take that away first.", len(bound))
	}

	_, err = a.st.Commit(r.Context(), a.st.Apps.DeleteOp(it.ID, it.Revision), a.st.Index.DeleteOp(appIndex(&it.Value), 0))
	if errors.Is(err, store.ErrConflict) {
		return nil, fault.New(fault.Conflict, "The app was changed at the same time.")
	}

	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("delete app: %w", err)
	}

	return map[string]any{}, nil
}

// changeApp changes the app in the path and shows it.
func (a *API) changeApp(r *web.Request, show clearFor, change func(*spec.App) error) (any, error) {
	// The body repeats the app's fields, which change nothing here; it may be missing.
	var in appIn
	if err := r.DecodeOptional(&in); err != nil {
		return nil, err
	}

	it, err := a.app(r)
	if err != nil {
		return nil, err
	}

	it, err = a.st.Apps.Update(r.Context(), it.ID, func(app *spec.App) error {
		app.UpdatedAt = a.nowMillis()

		return change(app)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, web.NotFound("app", it.ID)
	}

	if err != nil {
		return nil, fmt.Errorf("change app: %w", err)
	}

	return a.answerApp(r, &it.Value, show)
}

func (a *API) resetSecret(r *web.Request) (any, error) {
	return a.changeApp(r, clearFor{all: true}, func(app *spec.App) error {
		app.SealedSecret = a.d.Ring.Seal([]byte(randomHex(16)), auth.AppSecretContext(app.ID))

		return nil
	})
}

func (a *API) newCode(appID string) spec.AppCode {
	code := randomHex(32)
	hash := sha256.Sum256([]byte(code))

	return spec.AppCode{SealedCode: a.d.Ring.Seal([]byte(code), auth.AppCodeContext(appID)), Hash: hash[:]}
}

func (a *API) createCode(r *web.Request) (any, error) {
	return a.changeApp(r, clearFor{}, func(app *spec.App) error {
		if len(app.Codes) >= maxCodes {
			return fault.New(fault.QuotaExceeded, "An app may have at most %d codes.", maxCodes)
		}

		app.Codes = append(app.Codes, a.newCode(app.ID))

		return nil
	})
}

func (a *API) resetCode(r *web.Request) (any, error) {
	return a.changeApp(r, clearFor{}, func(app *spec.App) error {
		i := codeIndex(app, r.Var("app_code"))
		if i < 0 {
			return fault.New(fault.ObjectNotFound, "The app has no such code.")
		}

		app.Codes = slices.Clone(app.Codes)
		app.Codes[i] = a.newCode(app.ID)

		return nil
	})
}

func (a *API) deleteCode(r *web.Request) (any, error) {
	return a.changeApp(r, clearFor{}, func(app *spec.App) error {
		i := codeIndex(app, r.Var("app_code"))
		if i < 0 {
			return fault.New(fault.ObjectNotFound, "The app has no such code.")
		}

		app.Codes = slices.Delete(slices.Clone(app.Codes), i, i+1)

		return nil
	})
}

func codeIndex(app *spec.App, code string) int {
	hash := sha256.Sum256([]byte(code))

	return slices.IndexFunc(app.Codes, func(c spec.AppCode) bool { return subtle.ConstantTimeCompare(c.Hash, hash[:]) == 1 })
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails

	return hex.EncodeToString(b)
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)

	return err == nil && len(s) == 32
}
