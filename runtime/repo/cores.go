package repo

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Cores is how many processors this process may really use: its affinity and the quota of
// its control group, rounded up, at least 1.
func Cores() int {
	return coresFrom("/", runtime.NumCPU())
}

// coresFrom reads the quota below root, which holds proc and sys.
func coresFrom(root string, cpus int) int {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return cpus
	}

	cores := cpus

	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}

		switch {
		case parts[0] == "0" && parts[1] == "":
			cores = min(cores, walkUp(filepath.Join(root, "sys/fs/cgroup"), parts[2], quotaV2, cpus))
		case strings.Contains(","+parts[1]+",", ",cpu,"):
			cores = min(cores, walkUp(filepath.Join(root, "sys/fs/cgroup/cpu"), parts[2], quotaV1, cpus))
		}
	}

	return max(1, cores)
}

// walkUp applies the quotas of a group and of all groups around it.
func walkUp(base, group string, quota func(dir string) (int, bool), cores int) int {
	for dir := filepath.Join("/", group); ; dir = filepath.Dir(dir) {
		if n, ok := quota(filepath.Join(base, dir)); ok {
			cores = min(cores, n)
		}

		if dir == "/" {
			return cores
		}
	}
}

func quotaV2(dir string) (int, bool) {
	data, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return 0, false
	}

	most, period, _ := strings.Cut(strings.TrimSpace(string(data)), " ")

	return ceilDiv(most, period)
}

func quotaV1(dir string) (int, bool) {
	most, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_quota_us"))
	if err != nil {
		return 0, false
	}

	period, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_period_us"))
	if err != nil {
		return 0, false
	}

	return ceilDiv(strings.TrimSpace(string(most)), strings.TrimSpace(string(period)))
}

func ceilDiv(most, period string) (int, bool) {
	m, err1 := strconv.Atoi(most) // "max" is no number
	p, err2 := strconv.Atoi(period)

	if err1 != nil || err2 != nil || m <= 0 || p <= 0 {
		return 0, false
	}

	return (m + p - 1) / p, true
}
