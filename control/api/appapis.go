package api

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	authApp      = "APP"
	maxAPIRemark = 255
	maxAppsAsked = 1000 // apps named in one request
)

var (
	apiName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{2,254}$`)
	apiPath = regexp.MustCompile(`^(/[A-Za-z0-9_%*.-]+){1,255}$`)
)

type appAPIIn struct {
	Name           *string `json:"api_name"`
	Method         *string `json:"api_method"`
	Path           *string `json:"api_path"`
	URL            *string `json:"api_url"`
	Remark         *string `json:"api_remark"`
	AuthType       *string `json:"auth_type"`
	SupportAppCode *bool   `json:"support_app_code"`
}

type appsIn struct {
	Apps *[]struct {
		AppID string `json:"app_id"`
	} `json:"apps"`
}

type appAPIView struct {
	APIID          string `json:"api_id"`
	Method         string `json:"api_method"`
	Name           string `json:"api_name"`
	Remark         string `json:"api_remark"`
	AuthType       string `json:"auth_type"`
	PredictURL     string `json:"predict_url"`
	ServiceID      string `json:"service_id"`
	ServiceName    string `json:"service_name"`
	SupportAppCode bool   `json:"support_app_code"`
}

type authResult struct {
	APIID   string `json:"api_id"`
	AppID   string `json:"app_id"`
	AuthID  string `json:"auth_id,omitempty"`
	Success bool   `json:"success"`
	Reason  string `json:"reason,omitempty"`
}

func (a *API) viewAppAPI(api *spec.AppAPI, serviceName string) appAPIView {
	return appAPIView{
		APIID: api.ID, Method: "ANY", Name: api.Name, Remark: api.Remark, AuthType: api.AuthType,
		PredictURL: a.predictURL(api.ServiceID), ServiceID: api.ServiceID, ServiceName: serviceName,
		SupportAppCode: api.SupportAppCode,
	}
}

func (in *appAPIIn) check() error {
	var m mistakes

	if in.Name != nil && !apiName.MatchString(*in.Name) {
		m.addf("api_name", "must match %s", apiName)
	}

	methods := []string{"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "ANY"}
	if in.Method != nil && !slices.Contains(methods, strings.TrimSpace(*in.Method)) {
		m.addf("api_method", "must be one of %s", strings.Join(methods, ", "))
	}

	for name, v := range map[string]*string{"api_path": in.Path, "api_url": in.URL} {
		// The platform's own example gives a whole URL.
		text := regexp.MustCompile(`^https?://[^/]+`).ReplaceAllString(value(v), "")
		if v != nil && (len(*v) > 255 || !apiPath.MatchString(text)) {
			m.addf(name, "must be a path of at most 255 characters")
		}
	}

	if utf8.RuneCountInString(value(in.Remark)) > maxAPIRemark {
		m.addf("api_remark", "must have at most %d characters", maxAPIRemark)
	}

	if in.AuthType != nil && !slices.Contains([]string{"NONE", authApp, "IAM"}, *in.AuthType) {
		m.addf("auth_type", "must be NONE, APP or IAM")
	}

	return web.Invalid(m.errs...)
}

func (a *API) createAppAPI(r *web.Request) (any, error) {
	var in appAPIIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if err := in.check(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	api, err := a.publishAPI(r, &it.Value, &in)
	if err != nil {
		return nil, err
	}

	return map[string]any{"api": a.viewAppAPI(api, it.Value.Name)}, nil
}

// publishAPI makes the API of a service; a service has one.
func (a *API) publishAPI(r *web.Request, s *spec.Service, in *appAPIIn) (*spec.AppAPI, error) {
	api := &spec.AppAPI{
		ID: randomHex(16), Name: "infer_" + strings.ReplaceAll(s.ID, "-", ""), ServiceID: s.ID, ProjectID: s.ProjectID,
		Remark: value(in.Remark), AuthType: authApp, SupportAppCode: true, CreatedAt: a.nowMillis(),
	}

	assign(&api.Name, in.Name)
	assign(&api.AuthType, in.AuthType)
	assign(&api.SupportAppCode, in.SupportAppCode)

	_, err := a.st.Commit(r.Context(),
		a.st.Index.CreateOp(store.IndexKey(store.IndexAppAPI, s.ID), api.ID),
		a.st.AppAPIs.CreateOp(api.ID, *api),
		a.st.Services.ExistsOp(s.ID, 0))

	switch {
	case errors.Is(err, store.ErrExists):
		return nil, fault.New(fault.ObjectExists, "The service %s already has an API.", s.Name)
	case errors.Is(err, store.ErrNotFound):
		return nil, fault.New(fault.ServiceNotFound, "Service %s does not exist.", s.ID)
	case err != nil:
		return nil, fmt.Errorf("publish API: %w", err)
	}

	return api, nil
}

// apiOf reads the API in the path, which must belong to the service in the path.
func (a *API) apiOf(r *web.Request) (store.Item[spec.AppAPI], *spec.Service, error) {
	svc, err := a.service(r)
	if err != nil {
		return store.Item[spec.AppAPI]{}, nil, err
	}

	id := r.Var("api_id")
	missing := web.NotFound("API", id)

	if !isHex(id) {
		return store.Item[spec.AppAPI]{}, nil, missing
	}

	it, err := a.st.AppAPIs.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && it.Value.ServiceID != svc.ID {
		return it, nil, missing
	}

	if err != nil {
		return it, nil, fmt.Errorf("read API: %w", err)
	}

	return it, &svc.Value, nil
}

func (a *API) showAppAPI(r *web.Request) (any, error) {
	it, s, err := a.apiOf(r)
	if err != nil {
		return nil, err
	}

	return map[string]any{"api": a.viewAppAPI(&it.Value, s.Name)}, nil
}

// apisOf lists the APIs of a service.
func (a *API) apisOf(r *web.Request, serviceID string) ([]spec.AppAPI, error) {
	all, _, err := a.st.AppAPIs.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list app APIs: %w", err)
	}

	return slices.DeleteFunc(all, func(api spec.AppAPI) bool { return api.ServiceID != serviceID }), nil
}

func (a *API) listAppAPIs(r *web.Request) (any, error) {
	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	apis, err := a.apisOf(r, it.ID)
	if err != nil {
		return nil, err
	}

	views := []appAPIView{}
	for i := range apis {
		views = append(views, a.viewAppAPI(&apis[i], it.Value.Name))
	}

	return map[string]any{"apis": views, "count": len(views), "total_count": len(views)}, nil
}

// appAPIs lists the APIs that an app may call.
func (a *API) appAPIs(r *web.Request) (any, error) {
	q := r.Query()
	name := strings.ToLower(q.String("service_name"))
	order := q.Enum("order", "asc", "asc", "desc")
	_ = q.Enum("sort_by", "app_name", "app_name", "created_at", "updated_at")
	page := q.Page()

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.app(r)
	if err != nil {
		return nil, err
	}

	apis, err := a.boundAPIs(r.Context(), it.ID)
	if err != nil {
		return nil, err
	}

	views := []appAPIView{}

	for i := range apis {
		svc, err := a.st.Services.Get(r.Context(), apis[i].ServiceID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("read service: %w", err)
		}

		if strings.Contains(strings.ToLower(svc.Value.Name), name) {
			views = append(views, a.viewAppAPI(&apis[i], svc.Value.Name))
		}
	}

	slices.SortFunc(views, func(x, y appAPIView) int {
		if order == "desc" {
			x, y = y, x
		}

		return strings.Compare(x.Name, y.Name)
	})

	total := len(views)
	views = web.Cut(page, views)

	return map[string]any{"apis": views, "count": len(views), "total_count": total}, nil
}

func (in *appsIn) read(r *web.Request) ([]string, error) {
	if err := r.Decode(in); err != nil {
		return nil, err
	}

	if in.Apps == nil {
		return nil, web.Required("apps")
	}

	if len(*in.Apps) > maxAppsAsked {
		return nil, web.Fieldf("apps", "must have at most %d elements", maxAppsAsked)
	}

	var ids []string

	for i, app := range *in.Apps {
		if app.AppID == "" {
			return nil, web.Required(fmt.Sprintf("apps[%d].app_id", i))
		}

		if !slices.Contains(ids, app.AppID) {
			ids = append(ids, app.AppID)
		}
	}

	return ids, nil
}

func (a *API) createAndAuth(r *web.Request) (any, error) {
	var in appsIn

	ids, err := in.read(r)
	if err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	api, err := a.publishAPI(r, &it.Value, &appAPIIn{})
	if err != nil {
		return nil, err
	}

	results, err := a.grant(r, api.ID, ids, keepOthers)
	if err != nil {
		return nil, err
	}

	return map[string]any{"api": a.viewAppAPI(api, it.Value.Name), "auth_result": results}, nil
}

func (a *API) deleteAppAPI(r *web.Request) (any, error) {
	it, s, err := a.apiOf(r)
	if err != nil {
		return nil, err
	}

	if err := a.dropAppAPI(r, it.ID, s.ID); err != nil {
		return nil, err
	}

	return web.Reply{Status: http.StatusNoContent}, nil
}

func (a *API) dropAppAPI(r *web.Request, id, serviceID string) error {
	_, err := a.st.Commit(r.Context(), a.st.AppAPIs.DeleteOp(id, 0),
		a.st.Index.DeleteOp(store.IndexKey(store.IndexAppAPI, serviceID), 0))
	if err != nil {
		return fmt.Errorf("delete API: %w", err)
	}

	return nil
}

// dropAppAPIs removes what is published of a service that goes away.
func (a *API) dropAppAPIs(r *web.Request, serviceID string) error {
	apis, err := a.apisOf(r, serviceID)
	if err != nil {
		return err
	}

	for i := range apis {
		if err := a.dropAppAPI(r, apis[i].ID, serviceID); err != nil {
			return err
		}
	}

	return nil
}
