package api

import (
	"net/http"
	"slices"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/web"
)

// Routes are the operations of the API.
func (a *API) Routes() []web.Route {
	routes := slices.Concat(a.modelRoutes(), a.serviceRoutes(), a.appRoutes())

	for i := range routes {
		routes[i].Pattern = "/v1/{project_id}" + routes[i].Pattern
	}

	return routes
}

func (a *API) modelRoutes() []web.Route {
	return []web.Route{
		{Name: "CreateModel", Method: http.MethodPost, Pattern: "/models", Action: auth.ActionModelCreate, Handle: a.createModel},
		{Name: "ListModels", Method: http.MethodGet, Pattern: "/models", Action: auth.ActionModelList, Handle: a.listModels},
		{Name: "ListEngineRuntimes", Method: http.MethodGet, Pattern: "/models/ai-engine-runtimes", Action: auth.ActionModelList, Handle: a.listRuntimes},
		{Name: "ShowModel", Method: http.MethodGet, Pattern: "/models/{model_id}", Action: auth.ActionModelGet, Resource: "model_id", Handle: a.showModel},
		{Name: "DeleteModel", Method: http.MethodDelete, Pattern: "/models/{model_id}", Action: auth.ActionModelDelete, Resource: "model_id", Handle: a.deleteModel},
	}
}

func (a *API) serviceRoutes() []web.Route {
	const one = "/services/{service_id}"

	get := func(name, path, action string, h web.Handler) web.Route {
		return web.Route{Name: name, Method: http.MethodGet, Pattern: one + path, Action: action, Resource: "service_id", Handle: h}
	}

	return []web.Route{
		{Name: "CreateService", Method: http.MethodPost, Pattern: "/services", Action: auth.ActionServiceCreate, Handle: a.createService},
		{Name: "ListServices", Method: http.MethodGet, Pattern: "/services", Action: auth.ActionServiceList, Handle: a.listServices},
		{Name: "ShowServiceSpecifications", Method: http.MethodGet, Pattern: "/services/specifications", Action: auth.ActionServiceList, Handle: a.listSpecifications},
		{Name: "ListServiceTags", Method: http.MethodGet, Pattern: "/services/tms/tags", Action: auth.ActionServiceList, Handle: a.listTags},
		get("ShowService", "", auth.ActionServiceGet, a.showService),
		// The actions of the next two depend on the body; the handlers check them.
		{Name: "UpdateService", Method: http.MethodPut, Pattern: one, Handle: a.updateService},
		{Name: "PatchServiceV2", Method: http.MethodPatch, Pattern: one, Action: auth.ActionServiceUpdate, Resource: "service_id", Handle: a.patchService},
		// Several ids may stand in the path; the handler checks each.
		{Name: "DeleteService", Method: http.MethodDelete, Pattern: one, Handle: a.deleteServices},
		get("ShowServiceMonitorInfo", "/monitor", auth.ActionServiceGetMonitor, a.showMonitor),
		get("ShowServiceUpdateLogs", "/logs", auth.ActionServiceGetLogs, a.showLogs),
		get("ShowServiceEvents", "/events", auth.ActionServiceGetEvents, a.showEvents),
		get("ListServiceInstances", "/instances", auth.ActionServiceGet, a.listInstances),
		get("ShowInstanceLog", "/instances/{instance_id}/logs", auth.ActionServiceGetLogs, a.showInstanceLog),
		get("ListPredictEndpoints", "/predict/endpoints", auth.ActionServiceGet, a.listEndpoints),
		{Name: "BatchCreateServiceTags", Method: http.MethodPost, Pattern: one + "/tags/create", Action: auth.ActionServiceUpdate, Resource: "service_id", Handle: a.createTags},
		{Name: "BatchDeleteServiceTags", Method: http.MethodDelete, Pattern: one + "/tags/delete", Action: auth.ActionServiceUpdate, Resource: "service_id", Handle: a.deleteTags},
		{Name: "ListClusters", Method: http.MethodGet, Pattern: "/clusters", Action: auth.ActionServiceList, Handle: a.listClusters},
	}
}

func (a *API) appRoutes() []web.Route {
	const (
		app     = "/app-auth/apps/{app_id}"
		code    = app + "/app-code"
		service = "/services/{service_id}"
		api     = service + "/app-auth-apis/{api_id}"
	)

	// Apps belong to the one who made them; the handlers check that.
	routes := []web.Route{
		{Name: "CreateApigApp", Method: http.MethodPost, Pattern: "/app-auth/apps", Action: auth.ActionAppCreate, Handle: a.createApp},
		{Name: "ListApigApps", Method: http.MethodGet, Pattern: "/app-auth/apps", Action: auth.ActionAppList, Handle: a.listApps},
		{Name: "ShowApigApp", Method: http.MethodGet, Pattern: app, Action: auth.ActionAppGet, Resource: "app_id", Handle: a.showApp},
		{Name: "DeleteApigApp", Method: http.MethodDelete, Pattern: app, Action: auth.ActionAppDelete, Resource: "app_id", Handle: a.deleteApp},
		{Name: "ApigAppExists", Method: http.MethodGet, Pattern: app + "/exists", Action: auth.ActionAppList, Handle: a.appExists},
		{Name: "ShowApisBindToApp", Method: http.MethodGet, Pattern: app + "/auth-apis", Action: auth.ActionAppGet, Resource: "app_id", Handle: a.appAPIs},
		{Name: "CreateApigAppCode", Method: http.MethodPost, Pattern: code, Action: auth.ActionAppUpdate, Resource: "app_id", Handle: a.createCode},
		{Name: "ResetApigAppCode", Method: http.MethodPut, Pattern: code + "/{app_code}", Action: auth.ActionAppUpdate, Resource: "app_id", Handle: a.resetCode},
		{Name: "DeleteApigAppCode", Method: http.MethodDelete, Pattern: code + "/{app_code}", Action: auth.ActionAppUpdate, Resource: "app_id", Handle: a.deleteCode},
		{Name: "ResetApigAppSecret", Method: http.MethodPut, Pattern: app + "/app-secret", Action: auth.ActionAppUpdate, Resource: "app_id", Handle: a.resetSecret},
	}

	update := func(name, method, pattern string, h web.Handler) {
		routes = append(routes, web.Route{
			Name: name, Method: method, Pattern: pattern, Action: auth.ActionServiceUpdate, Resource: "service_id", Handle: h,
		})
	}

	read := func(name, pattern string, h web.Handler) {
		routes = append(routes, web.Route{
			Name: name, Method: http.MethodGet, Pattern: pattern, Action: auth.ActionServiceGet, Resource: "service_id", Handle: h,
		})
	}

	update("CreateAppAuthApi", http.MethodPost, "/app-auth/{service_id}/apis", a.createAppAPI)
	read("GetAppAuthApiInfo", "/app-auth/{service_id}/apis/{api_id}", a.showAppAPI)
	update("CreateAndAuthAppAuthApi", http.MethodPost, service+"/app-auth-api", a.createAndAuth)
	read("GetAppAuthApisInfo", service+"/app-auth-apis", a.listAppAPIs)
	update("AuthorizeApiToApigApps", http.MethodPost, api+"/app-auth-api", a.authorizeApps)
	update("UpdateAuthApiToApigApps", http.MethodPut, api+"/app-auth-api", a.replaceAuthorized)
	update("DeleteApiAppAuth", http.MethodDelete, api+"/app-auth-api", a.unauthorizeApps)
	update("DeleteAppAuthApi", http.MethodDelete, api, a.deleteAppAPI)
	read("ShowApiAuthInfos", api+"/api-auths", a.listAuths)
	read("GetServiceAppAuthApiAuthInfo", service+"/api-auths", a.serviceAuths)

	return routes
}
