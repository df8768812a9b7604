package version

import (
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()

	vcs := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: modified},
		}}
	}

	for _, c := range []struct {
		name, stamp string
		info        *debug.BuildInfo
		want        string
	}{
		{"stamp wins", " v1.2.3\n", &debug.BuildInfo{Main: debug.Module{Version: "v9"}}, "v1.2.3"},
		{"module", "", &debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}}, "v1.0.0"},
		{"revision", "", vcs("false"), "0123456789ab"},
		{"changed tree", "", vcs("true"), "0123456789ab-dirty"},
		{"built in the tree without version control", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "dev"},
		{"nothing known", "", nil, "dev"},
	} {
		if got := describe(c.stamp, c.info); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
