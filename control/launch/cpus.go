package launch

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuSet is the set of processors that engines with a limit are spread over.
type cpuSet struct {
	all  []int       // those that this process may use
	used map[int]int // how many engines were given each
}

func newCPUSet() cpuSet {
	s := cpuSet{used: map[int]int{}}

	var mask unix.CPUSet
	if unix.SchedGetaffinity(0, &mask) != nil {
		return s // then nothing is bounded
	}

	for i := range len(mask) * strconv.IntSize {
		if mask.IsSet(i) {
			s.all = append(s.all, i)
		}
	}

	return s
}

// take chooses the least used processors for an engine that may use limit of them; none when it may use all.
func (s *cpuSet) take(limit float64) []int {
	n := int(math.Ceil(limit))
	if limit <= 0 || n >= len(s.all) {
		return nil
	}

	by := slices.Clone(s.all)
	slices.SortStableFunc(by, func(a, b int) int { return s.used[a] - s.used[b] })
	by = by[:n]

	s.occupy(by)

	return by
}

// occupy notes that an engine is bound to processors.
func (s *cpuSet) occupy(cpus []int) {
	for _, c := range cpus {
		s.used[c]++
	}
}

func (s *cpuSet) give(back []int) {
	for _, c := range back {
		s.used[c]--
	}
}

// granted is how many processors an engine with that limit may really use, which is more than a share of one.
func (s *cpuSet) granted(limit float64) int { return min(int(math.Ceil(limit)), len(s.all)) }

// tellShare warns that a share of a processor is not held: an engine is kept on whole ones.
func (p *process) tellShare() {
	limit := p.task.CPULimit

	n := p.owner.cpus.granted(limit) // all is never changed
	if limit <= 0 || float64(n) <= limit {
		return
	}

	p.log.Warn("a share of a processor is not enforced: the engine may use whole ones",
		slog.Float64("cpu", limit), slog.Int("processors", n))
}

// cpuList is how processors are told to a supervisor.
func cpuList(cpus []int) string {
	words := make([]string, 0, len(cpus))
	for _, c := range cpus {
		words = append(words, strconv.Itoa(c))
	}

	return strings.Join(words, ",")
}

// parseCPUs reads a list that cpuList wrote.
func parseCPUs(list string) []int {
	var cpus []int

	for word := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(word); err == nil {
			cpus = append(cpus, n)
		}
	}

	return cpus
}

// bind keeps this thread, and what it starts, on the processors of a list.
func bind(list string) error {
	var mask unix.CPUSet

	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || n >= len(mask)*strconv.IntSize {
			return fmt.Errorf("processor %q", word)
		}

		mask.Set(n)
	}

	if err := unix.SchedSetaffinity(0, &mask); err != nil {
		return fmt.Errorf("bind to processors %s: %w", list, err)
	}

	return nil
}
