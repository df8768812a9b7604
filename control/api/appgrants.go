package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// grantMode says what becomes of the apps that a request does not name.
type grantMode uint8

const (
	keepOthers grantMode = iota
	onlyThese
)

// grant lets apps call an API.
func (a *API) grant(r *web.Request, apiID string, ids []string, mode grantMode) ([]authResult, error) {
	results := make([]authResult, 0, len(ids))

	var good []string

	for _, id := range ids {
		reason, err := a.refusal(r, id)
		if err != nil {
			return nil, err
		}

		results = append(results, authResult{APIID: apiID, AppID: clip(id), Success: reason == "", Reason: reason})

		if reason == "" {
			good = append(good, id)
		}
	}

	it, err := a.st.AppAPIs.Update(r.Context(), apiID, func(api *spec.AppAPI) error {
		if api.AuthType != authApp {
			return fault.New(fault.Conflict, "The API does not take APP authentication.")
		}

		given := maps.Clone(api.AuthIDs)
		if mode == onlyThese || given == nil {
			given = map[string]string{}
		}

		for _, id := range good {
			given[id] = api.AuthIDs[id]
			if given[id] == "" {
				given[id] = randomHex(16)
			}
		}

		api.AuthIDs, api.AppIDs = given, slices.Sorted(maps.Keys(given))

		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, web.NotFound("API", apiID)
	}

	if err != nil {
		return nil, fmt.Errorf("authorise apps: %w", err)
	}

	for i := range results {
		if results[i].Success {
			results[i].AuthID = it.Value.AuthIDs[results[i].AppID]
		}
	}

	return results, nil
}

// refusal says why an app cannot be authorised; "" if it can.
func (a *API) refusal(r *web.Request, id string) (string, error) {
	missing := "the app does not exist"
	if !isHex(id) {
		return missing, nil
	}

	it, err := a.st.Apps.Get(r.Context(), id)

	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && it.Value.ProjectID != project(r):
		return missing, nil
	case err != nil:
		return "", fmt.Errorf("read app: %w", err)
	case it.Value.UserID != r.Principal.UserID && !a.overseer(r):
		return missing, nil
	default:
		return "", nil
	}
}

func (a *API) authorizeApps(r *web.Request) (any, error)     { return a.changeGrants(r, keepOthers) }
func (a *API) replaceAuthorized(r *web.Request) (any, error) { return a.changeGrants(r, onlyThese) }

func (a *API) changeGrants(r *web.Request, mode grantMode) (any, error) {
	var in appsIn

	ids, err := in.read(r)
	if err != nil {
		return nil, err
	}

	it, _, err := a.apiOf(r)
	if err != nil {
		return nil, err
	}

	results, err := a.grant(r, it.ID, ids, mode)
	if err != nil {
		return nil, err
	}

	return map[string]any{"auth_result": results}, nil
}

func (a *API) unauthorizeApps(r *web.Request) (any, error) {
	var in appsIn

	ids, err := in.read(r)
	if err != nil {
		return nil, err
	}

	it, _, err := a.apiOf(r)
	if err != nil {
		return nil, err
	}

	var results []authResult

	_, err = a.st.AppAPIs.Update(r.Context(), it.ID, func(api *spec.AppAPI) error {
		results = make([]authResult, 0, len(ids))
		given := maps.Clone(api.AuthIDs)

		for _, id := range ids {
			res := authResult{APIID: it.ID, AppID: clip(id), AuthID: given[id], Success: given[id] != ""}
			if !res.Success {
				res.Reason = "the app is not authorised"
			}

			delete(given, id)

			results = append(results, res)
		}

		api.AuthIDs, api.AppIDs = given, slices.Sorted(maps.Keys(given))

		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("take authorisation away: %w", err)
	}

	return map[string]any{"unauth_result": results}, nil
}

func (a *API) listAuths(r *web.Request) (any, error) {
	f, q := readAppQuery(r)
	only := q.Enum("show_only", "", "AUTH", "UNAUTH")

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, _, err := a.apiOf(r)
	if err != nil {
		return nil, err
	}

	apps, err := a.visibleApps(r, &f)
	if err != nil {
		return nil, err
	}

	apps = slices.DeleteFunc(apps, func(app spec.App) bool {
		authed := slices.Contains(it.Value.AppIDs, app.ID)

		return only == "AUTH" && !authed || only == "UNAUTH" && authed
	})

	bound, err := a.countBound(r.Context())
	if err != nil {
		return nil, err
	}

	views := []map[string]any{}

	for _, app := range web.Cut(f.page, apps) {
		v, err := a.viewApp(&app, bound[app.ID], f.clear)
		if err != nil {
			return nil, err
		}

		views = append(views, map[string]any{"app": v, "authed": slices.Contains(it.Value.AppIDs, app.ID)})
	}

	return map[string]any{"auths": views, "count": len(views), "total_count": len(apps)}, nil
}

func (a *API) serviceAuths(r *web.Request) (any, error) {
	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	apis, err := a.apisOf(r, it.ID)
	if err != nil {
		return nil, err
	}

	if len(apis) == 0 {
		return map[string]any{"enable_app_auth": false, "app_auth_api": nil}, nil
	}

	apps, err := a.visibleApps(r, &appQuery{sortBy: "app_name", order: "asc"})
	if err != nil {
		return nil, err
	}

	bound, err := a.countBound(r.Context())
	if err != nil {
		return nil, err
	}

	authed := []appView{}

	for i := range apps {
		if !slices.Contains(apis[0].AppIDs, apps[i].ID) {
			continue
		}

		v, err := a.viewApp(&apps[i], bound[apps[i].ID], clearFor{})
		if err != nil {
			return nil, err
		}

		authed = append(authed, v)
	}

	return map[string]any{
		"enable_app_auth": apis[0].AuthType == authApp,
		"app_auth_api":    map[string]any{"api_id": apis[0].ID, "authed_apps": authed},
	}, nil
}
