package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

type sample struct {
	Name  string            `yaml:"name"`
	Edge  edge              `yaml:"edge"`
	Hosts []edge            `yaml:"hosts"`
	Env   map[string]string `yaml:"env"`
	Opt   *edge             `yaml:"opt"`
}

type edge struct {
	Address string          `yaml:"address"`
	Wait    config.Duration `yaml:"wait"`
	Body    config.ByteSize `yaml:"body"`
	Count   int             `yaml:"count"`
	On      bool            `yaml:"on"`
}

func (s *sample) Validate() error {
	if s.Name == "" {
		return config.At("name", "is required")
	}

	return nil
}

func TestLoadKeepsDefaultsAndReadsUnits(t *testing.T) {
	t.Parallel()

	c := sample{Name: "x", Edge: edge{Address: "a", Count: 7}}

	err := config.Load([]byte("edge:\n  wait: 1m30s\n  body: 12MB\nhosts:\n- {count: 3, on: true}\nenv: {A: b}\nopt: {body: 64KiB}\n"), &c)
	if err != nil {
		t.Fatal(err)
	}

	if c.Edge.Address != "a" || c.Edge.Count != 7 || c.Edge.Wait.D() != 90*time.Second || c.Edge.Body != 12_000_000 {
		t.Fatalf("edge %+v", c.Edge)
	}

	if len(c.Hosts) != 1 || c.Hosts[0].Count != 3 || !c.Hosts[0].On || c.Env["A"] != "b" || c.Opt.Body != 65536 {
		t.Fatalf("got %+v %+v", c, c.Opt)
	}
}

func TestLoadReportsEveryMistakeWithItsPath(t *testing.T) {
	t.Parallel()

	c := sample{}
	err := config.Load([]byte(`
edge:
  adress: x
  wait: soon
  body: 3 parsecs
  count: many
hosts:
- count: 1
- bogus: 1
- 7
env: [a]
`), &c)

	if err == nil {
		t.Fatal("no error")
	}

	text := err.Error()
	for _, want := range []string{
		`edge.adress (line 3): unknown key, did you mean "address"?`,
		"edge.wait (line 4)", "edge.body (line 5)", "edge.count (line 6)",
		"hosts[1].bogus (line 9)", "hosts[2] (line 10)", "env (line 11)", "name: is required",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}

	if n := len(config.Mistakes(err)); n != 8 {
		t.Errorf("%d mistakes, want 8:\n%s", n, text)
	}
}

func TestLoadRefusesBrokenDocuments(t *testing.T) {
	t.Parallel()

	for name, text := range map[string]string{
		"syntax":        "a: [",
		"two documents": "name: a\n---\nname: b\n",
		"alias":         "name: a\nedge: &e {count: 1}\nopt: *e\n",
		"twice":         "name: a\nname: b\n",
		"scalar":        "just text",
	} {
		if err := config.Load([]byte(text), &sample{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}

	if err := config.Load(nil, &sample{Name: "x"}); err != nil {
		t.Errorf("empty file: %v", err)
	}
}

func TestPrefixNestsPaths(t *testing.T) {
	t.Parallel()

	err := config.Prefix("edge", config.At("http.address", "bad"))
	if err.Error() != "edge.http.address: bad" || config.Prefix("x", nil) != nil {
		t.Fatal(err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("name: x\nedge: {wait: 1s}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		c := sample{Name: "x"}
		_ = config.Load(data, &c)
	})
}
