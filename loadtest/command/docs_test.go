package command_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/loadtest/command"
)

func TestEveryFlagAndFieldIsDocumented(t *testing.T) {
	t.Parallel()

	page := read(t, "../../docs/loadtest/README.md")
	_, flags, _ := strings.Cut(page, "## Every flag")

	names := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z0-9-]+)`).FindAllStringSubmatch(command.New("test").Flags().FlagUsages(), -1)
	if len(names) < 40 {
		t.Fatalf("only %d flags", len(names))
	}

	for _, n := range names {
		if !strings.Contains(flags, "--"+n[1]+"`") && !strings.Contains(flags, "--"+n[1]+" ") {
			t.Errorf("--%s is not in docs/loadtest", n[1])
		}
	}

	var schema struct {
		Defs struct {
			Run struct {
				Properties map[string]any `json:"properties"`
			} `json:"run"`
		} `json:"$defs"`
	}

	if err := json.Unmarshal([]byte(read(t, "../../docs/loadtest/report.v1.json")), &schema); err != nil {
		t.Fatal(err)
	}

	for name := range schema.Defs.Run.Properties {
		if name != "name" && !strings.Contains(page, "`"+name) {
			t.Errorf("the field %s is not in docs/loadtest", name)
		}
	}
}
