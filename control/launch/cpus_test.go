package launch

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestSharesOfAProcessorAreWarnedOf: what is rounded up is said, what is held is not.
func TestSharesOfAProcessorAreWarnedOf(t *testing.T) {
	t.Parallel()

	for limit, want := range map[float64]string{
		0: "", 1: "", 2: "", 4: "", 8: "", // all, whole ones, more than there are
		0.5: "cpu=0.5 processors=1", 1.5: "cpu=1.5 processors=2", 3.25: "cpu=3.25 processors=4",
		4.5: "", // there are only four
	} {
		var out bytes.Buffer

		p := &process{
			owner: &Local{cpus: cpuSet{all: []int{0, 1, 2, 3}, used: map[int]int{}}},
			task:  Task{CPULimit: limit}, log: slog.New(slog.NewTextHandler(&out, nil)),
		}
		p.tellShare()

		got := out.String()
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("cpu %v: %q, want %q", limit, got, want)
		}
	}
}
