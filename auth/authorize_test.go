package auth_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// rightsTable is the table of the built-in roles in the words of the documentation.
func TestBuiltInRoles(t *testing.T) {
	t.Parallel()

	for _, action := range auth.Actions() {
		platform := strings.HasPrefix(action, "modelarts:")

		for role, want := range map[spec.Role]bool{
			spec.RoleAdministrator: true,
			spec.RoleOperator:      platform,
			spec.RoleCaller:        action == auth.ActionPredict,
			"":                     false,
			"root":                 false,
		} {
			got := mayDo(t, action, projectID, "x", spec.Grant{ProjectID: projectID, Role: role})
			if got != want {
				t.Errorf("role %q, action %s: got %v", role, action, got)
			}
		}
	}
}

func mayDo(t *testing.T, action, project, id string, grants ...spec.Grant) bool {
	t.Helper()

	s := world(t)
	s.Users[0].Grants = grants
	p := &auth.Principal{Method: auth.MethodAKSK, UserID: "u1", DomainID: domainID}

	return compile(t, s, nil).Authorize(p, action, project, id) == nil
}

func statement(effect, action string, resources ...string) spec.Statement {
	return spec.Statement{Effect: effect, Actions: []string{action}, Resources: resources}
}

func TestGrantsAndStatements(t *testing.T) {
	t.Parallel()

	const (
		svc    = "modelarts:" + projectID + ":service:"
		custom = "acme:robot:wave"
	)

	in := func(project string, st ...spec.Statement) spec.Grant {
		return spec.Grant{ProjectID: project, Statements: st}
	}
	role := func(project string, r spec.Role) spec.Grant { return spec.Grant{ProjectID: project, Role: r} }

	tests := map[string]struct {
		grants              []spec.Grant
		action, project, id string
		want                bool
	}{
		"no grant, no right":              {nil, auth.ActionPredict, projectID, "s1", false},
		"grant of another project":        {[]spec.Grant{role(otherID, spec.RoleAdministrator)}, auth.ActionPredict, projectID, "s1", false},
		"star reaches projects":           {[]spec.Grant{role("*", spec.RoleOperator)}, auth.ActionPredict, otherID, "s1", true},
		"star stops at the domain":        {[]spec.Grant{role("*", spec.RoleAdministrator)}, auth.ActionPredict, "foreign", "s1", false},
		"star stops at unknown projects":  {[]spec.Grant{role("*", spec.RoleAdministrator)}, auth.ActionPredict, "unknown", "s1", false},
		"disabled project":                {[]spec.Grant{role("*", spec.RoleAdministrator)}, auth.ActionPredict, "closed", "s1", false},
		"domain action needs star":        {[]spec.Grant{role(projectID, spec.RoleAdministrator)}, auth.ActionUserList, "", "", false},
		"domain action with star":         {[]spec.Grant{role("*", spec.RoleAdministrator)}, auth.ActionUserList, "", "", true},
		"exact action":                    {[]spec.Grant{in(projectID, statement("Allow", auth.ActionServiceGet))}, auth.ActionServiceGet, projectID, "s1", true},
		"exact action only":               {[]spec.Grant{in(projectID, statement("Allow", auth.ActionServiceGet))}, auth.ActionServiceGetLogs, projectID, "s1", false},
		"action in other letters":         {[]spec.Grant{in(projectID, statement("Allow", "ModelArts:Service:GETLOGS"))}, auth.ActionServiceGetLogs, projectID, "s1", true},
		"wildcard action":                 {[]spec.Grant{in(projectID, statement("Allow", "modelarts:service:get*"))}, auth.ActionServiceGetEvents, projectID, "s1", true},
		"wildcard action ends":            {[]spec.Grant{in(projectID, statement("Allow", "modelarts:service:get*"))}, auth.ActionServiceDelete, projectID, "s1", false},
		"wildcard in the middle":          {[]spec.Grant{in(projectID, statement("Allow", "*:model:*"))}, auth.ActionModelDelete, projectID, "m", true},
		"exact resource":                  {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"s1"))}, auth.ActionPredict, projectID, "s1", true},
		"other resource":                  {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"s1"))}, auth.ActionPredict, projectID, "s2", false},
		"resource prefix":                 {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"blue-*"))}, auth.ActionPredict, projectID, "blue-7", true},
		"resource prefix itself":          {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"blue-*"))}, auth.ActionPredict, projectID, "blue-", true},
		"outside the prefix":              {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"blue-*"))}, auth.ActionPredict, projectID, "blu", false},
		"resource pattern":                {[]spec.Grant{in(projectID, statement("Allow", "*", "*:service:*-eu-*x"))}, auth.ActionPredict, projectID, "a-eu-bx", true},
		"outside the pattern":             {[]spec.Grant{in(projectID, statement("Allow", "*", "*:service:*-eu-*x"))}, auth.ActionPredict, projectID, "a-eu-b", false},
		"kind of the resource counts":     {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"*"))}, auth.ActionModelGet, projectID, "s1", false},
		"collection under a prefix":       {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"*"))}, auth.ActionServiceList, projectID, "", true},
		"collection is not one resource":  {[]spec.Grant{in(projectID, statement("Allow", "*", svc+"s1"))}, auth.ActionServiceList, projectID, "", false},
		"deny beats role":                 {[]spec.Grant{role(projectID, spec.RoleAdministrator), in(projectID, statement("Deny", auth.ActionServiceDelete))}, auth.ActionServiceDelete, projectID, "s1", false},
		"deny beats allow after it":       {[]spec.Grant{in(projectID, statement("Deny", "*", svc+"s1"), statement("Allow", "*"))}, auth.ActionPredict, projectID, "s1", false},
		"deny leaves the rest":            {[]spec.Grant{in(projectID, statement("Deny", "*", svc+"s1"), statement("Allow", "*"))}, auth.ActionPredict, projectID, "s2", true},
		"deny everywhere beats own allow": {[]spec.Grant{role(projectID, spec.RoleCaller), in("*", statement("Deny", auth.ActionPredict))}, auth.ActionPredict, projectID, "s1", false},
		"own deny beats allow everywhere": {[]spec.Grant{role("*", spec.RoleCaller), in(projectID, statement("Deny", auth.ActionPredict))}, auth.ActionPredict, projectID, "s1", false},
		"unknown effect denies":           {[]spec.Grant{role(projectID, spec.RoleCaller), in(projectID, statement("deny!", auth.ActionPredict))}, auth.ActionPredict, projectID, "s1", false},
		"foreign action":                  {[]spec.Grant{in(projectID, statement("Allow", "acme:*", "acme:*"))}, custom, projectID, "r", true},
		"foreign action denied":           {[]spec.Grant{in(projectID, statement("Allow", "*"), statement("Deny", custom, "*:robot:r"))}, custom, projectID, "r", false},
		"foreign action not granted":      {[]spec.Grant{role(projectID, spec.RoleOperator)}, custom, projectID, "r", false},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if got := mayDo(t, test.action, test.project, test.id, test.grants...); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAuthorizeFaults(t *testing.T) {
	t.Parallel()

	d := compile(t, world(t), nil)
	user := func(project string) *auth.Principal {
		return &auth.Principal{Method: auth.MethodToken, UserID: "u1", DomainID: domainID, ProjectID: project}
	}

	tests := map[string]struct {
		p       *auth.Principal
		action  string
		project string
		code    fault.Code
	}{
		"token of another project":   {user(otherID), auth.ActionPredict, projectID, fault.ProjectMismatch},
		"token without project":      {user(""), auth.ActionPredict, projectID, fault.TokenScope},
		"disabled project":           {user("closed"), auth.ActionPredict, "closed", fault.ProjectUnavailable},
		"user without grants":        {&auth.Principal{Method: auth.MethodAKSK, UserID: "u3"}, auth.ActionPredict, projectID, fault.Forbidden},
		"user who is disabled":       {&auth.Principal{Method: auth.MethodAKSK, UserID: "u4"}, auth.ActionPredict, projectID, fault.Forbidden},
		"app manages":                {&auth.Principal{Method: auth.MethodAppCode, AppID: "app1"}, auth.ActionServiceGet, projectID, fault.Forbidden},
		"app without grant":          {&auth.Principal{Method: auth.MethodAppCode, AppID: "app2"}, auth.ActionPredict, projectID, fault.AppNotAuthorised},
		"nobody, service not public": {&auth.Principal{}, auth.ActionPredict, projectID, fault.NoCredentials},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantFault(t, d.Authorize(test.p, test.action, test.project, serviceID), test.code)
		})
	}
}

func TestAppsCallWhatTheyAreGranted(t *testing.T) {
	t.Parallel()

	s := world(t)
	s.Services = append(s.Services, spec.Route{ServiceID: "closed-to-codes", ProjectID: projectID, AppIDs: []string{"app1"}},
		spec.Route{ServiceID: "public", ProjectID: projectID, Policy: spec.Policy{AuthTypes: []spec.AuthType{spec.AuthNone}}})
	d := compile(t, s, nil)

	app := func(m auth.Method) *auth.Principal {
		return &auth.Principal{Method: m, AppID: "app1", ProjectID: projectID}
	}

	for _, m := range []auth.Method{auth.MethodAppSignature, auth.MethodAppCode, auth.MethodAppKey} {
		if err := d.Authorize(app(m), auth.ActionPredict, projectID, serviceID); err != nil {
			t.Errorf("method %d: %v", m, err)
		}
	}

	wantFault(t, d.AppMayCall(app(auth.MethodAppCode), "closed-to-codes"), fault.AppNotAuthorised)
	wantFault(t, d.AppMayCall(app(auth.MethodAppSignature), "unknown"), fault.AppNotAuthorised)

	if err := d.AppMayCall(app(auth.MethodAppSignature), "closed-to-codes"); err != nil {
		t.Error(err)
	}

	if err := d.Authorize(&auth.Principal{}, auth.ActionPredict, projectID, "public"); err != nil {
		t.Errorf("anybody may call a public service: %v", err)
	}
}

func TestCompileReportsAndSkipsWhatIsBroken(t *testing.T) {
	t.Parallel()

	s := world(t)
	s.AccessKeys = append(s.AccessKeys,
		spec.AccessKey{AccessKey: "AKMOVED", SealedSecret: seal("x", "ak:AKOTHER"), UserID: "u1", Enabled: true},
		spec.AccessKey{AccessKey: "AKORPHAN", SealedSecret: seal("x", "ak:AKORPHAN"), UserID: "u99", Enabled: true})
	s.Users[1].Grants = append(s.Users[1].Grants, spec.Grant{ProjectID: projectID, Role: "emperor"})

	d := compile(t, s, nil)

	var text strings.Builder
	for _, err := range d.Problems() {
		fmt.Fprintln(&text, err)
	}

	for _, want := range []string{"access key AKMOVED", "access key AKORPHAN", "user u2", `unknown role "emperor"`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("problems do not tell %q:\n%s", want, text.String())
		}
	}

	if strings.Contains(text.String(), testSK) {
		t.Error("a secret is told")
	}

	if _, err := auth.Compile(nil, nil, nil); err == nil {
		t.Error("no snapshot, no error")
	}
}

func TestCompileOpensASecretOnce(t *testing.T) {
	t.Parallel()

	opened := 0

	first, err := auth.Compile(world(t), box{&opened}, nil)
	if err != nil {
		t.Fatal(err)
	}

	if opened != 2 {
		t.Fatalf("%d secrets opened, want 2", opened)
	}

	s := world(t)
	s.Services = nil
	s.Users[2].Name = "renamed"

	second, err := auth.Compile(s, box{&opened}, first)
	if err != nil {
		t.Fatal(err)
	}

	s = world(t)
	s.AccessKeys[0].SealedSecret = seal("new", "ak:"+testAK)

	if _, err := auth.Compile(s, box{&opened}, second); err != nil {
		t.Fatal(err)
	}

	if opened != 3 {
		t.Errorf("%d secrets opened, want the first 2 and the changed one", opened)
	}
}
