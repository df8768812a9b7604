package api_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/control/api"
	"github.com/sluice-gateway/sluice/control/identity"
)

// TestDocumentationListsEveryOperation keeps docs/api/management.md and the routes equal.
func TestDocumentationListsEveryOperation(t *testing.T) {
	t.Parallel()

	text, err := os.ReadFile("../../docs/api/management.md")
	must(t, err)

	var served []string

	for _, r := range append(new(api.API).Routes(), new(identity.Service).Routes()...) {
		served = append(served, r.Method+" "+r.Pattern)
	}

	// The name of an app stands where its id would.
	served = slices.DeleteFunc(served, func(s string) bool { return strings.HasSuffix(s, "/{app_id}/exists") })
	served = append(served, http.MethodGet+" /v1/{project_id}/app-auth/apps/{app_name}/exists")

	rows := regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]+)` \\|").FindAllStringSubmatch(string(text), -1)
	told := make([]string, 0, len(rows))

	for _, m := range rows {
		told = append(told, m[1])
	}

	slices.Sort(served)
	slices.Sort(told)

	for _, s := range served {
		if !slices.Contains(told, s) {
			t.Errorf("not documented: %s", s)
		}
	}

	for _, s := range told {
		if !slices.Contains(served, s) {
			t.Errorf("documented and not served: %s", s)
		}
	}
}
