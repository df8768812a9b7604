package repo_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/repo"
)

func TestCoresFollowTheControlGroups(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		files map[string]string
		want  int
	}{
		"no groups":           {nil, 8},
		"unlimited":           {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8},
		"v2":                  {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2},
		"rounds up":           {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3},
		"less than one":       {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1},
		"more than there are": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9000000 100000\n"}, 8},
		"the parent's": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
		}, 3},
		"v1": {map[string]string{
			"proc/self/cgroup":                      "5:memory:/x\n4:cpu,cpuacct:/x\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us":  "400000\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
		}, 4},
		"v1 unlimited": {map[string]string{
			"proc/self/cgroup":                    "4:cpu:/\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":  "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, 8},
		"rubbish": {map[string]string{"proc/self/cgroup": "x\n0::/\n", "sys/fs/cgroup/cpu.max": "a b c\n"}, 8},
	} {
		root := t.TempDir()

		for path, data := range tc.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}

			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		if got := repo.CoresFrom(root, 8); got != tc.want {
			t.Errorf("%s: %d cores, want %d", name, got, tc.want)
		}
	}

	if repo.Cores() < 1 {
		t.Error("no cores at all")
	}
}
