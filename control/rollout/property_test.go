package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/spec"
)

// histories is the number of random histories of each test. To search for longer, raise it.
const histories = 120

// modes are settings of max_surge and max_unavailable with what they allow for n instances.
var modes = []struct {
	surge, unavailable float64
	more, fewer        func(n int) int
}{
	{1, 0, func(int) int { return 1 }, func(int) int { return 0 }},
	{0, 1, func(int) int { return 0 }, func(int) int { return 1 }},
	{0, 0, func(int) int { return 1 }, func(int) int { return 0 }},
	{0.5, 0, func(n int) int { return (n + 1) / 2 }, func(int) int { return 0 }},
	{0, 0.5, func(n int) int { return max(0, 1-n/2) }, func(n int) int { return n / 2 }},
	{100, 0, func(int) int { return 100 }, func(int) int { return 0 }},
	{2, 1, func(int) int { return 2 }, func(int) int { return 1 }},
}

// TestUpgradeStaysWithinItsBounds lets instances get ready and end in any order, loses actions,
// and looks at every step.
func TestUpgradeStaysWithinItsBounds(t *testing.T) {
	t.Parallel()

	for seed := range uint64(histories) {
		rng := rand.New(rand.NewPCG(seed, 1))
		mode := modes[rng.IntN(len(modes))]
		n := 1 + rng.IntN(6)
		name := fmt.Sprintf("seed %d, %d instances, surge %v, unavailable %v", seed, n, mode.surge, mode.unavailable)

		w := newWorld()
		w.deploy(entry("v1", n))
		w.settle()
		readyAll(w)
		w.settle()

		e := entry("v2", n)
		e.MaxSurge, e.MaxUnavailable = mode.surge, mode.unavailable
		w.deploy(e)

		for round := 0; ; round++ {
			step(w, rng, 4) // sometimes control is restarted before it acts

			if got := len(w.instances); got > n+mode.more(n) {
				t.Fatalf("%s: %d instances\n%s", name, got, w.describe())
			}

			if got := readyNow(w); got < n-mode.fewer(n) {
				t.Fatalf("%s: %d ready\n%s", name, got, w.describe())
			}

			checkSplit(t, w, name)

			if w.state.Upgrade == nil && len(w.instances) == n && readyNow(w) == n {
				break
			}

			if round > 500 {
				t.Fatalf("%s: not done\n%s", name, w.describe())
			}

			happen(w, rng)
		}

		for _, inst := range w.instances {
			if inst.ModelID != "v2" {
				t.Fatalf("%s: %s is left", name, inst.ID)
			}
		}
	}
}

// TestUpdateThatEndsInTheStepThatBeginsIt goes back to what serves already: the update is done at once.
func TestUpdateThatEndsInTheStepThatBeginsIt(t *testing.T) {
	t.Parallel()

	w := newWorld()
	w.deploy(entry("v1", 2))
	w.settle()
	readyAll(w)
	w.settle()

	w.deploy(entry("v2", 2))
	w.service.Generation += 5 // more updates than steps
	w.record()
	w.deploy(entry("v1", 2))
	w.record()

	last := w.logs[len(w.logs)-1]
	if last.Generation != w.service.Generation || last.Result != spec.UpdateSuccess {
		t.Errorf("the last entry is %s of generation %d, not success of %d", last.Result, last.Generation, w.service.Generation)
	}
}

// step does one step; one in n is not followed by any action.
func step(w *world, rng *rand.Rand, n int) {
	if actions := w.record(); rng.IntN(n) > 0 {
		w.act(actions)
	}
}

// happen lets one thing happen that is not a fault.
func happen(w *world, rng *rand.Rand) {
	for _, inst := range w.instances {
		if rng.IntN(2) == 0 {
			continue
		}

		if inst.State == spec.InstanceDraining {
			w.exit(inst.ID, "", false)
		} else {
			w.listen(inst.ID, spec.InstanceReady, "")
		}
	}
}

func readyAll(w *world) {
	for _, inst := range w.instances {
		w.listen(inst.ID, spec.InstanceReady, "")
	}
}

func readyNow(w *world) int {
	return len(w.ids(func(i spec.Instance) bool { return i.State == spec.InstanceReady }))
}

func checkSplit(t *testing.T, w *world, name string) {
	t.Helper()

	sum := 0

	for _, share := range rollout.Split(&w.service, &w.state, w.instances) {
		sum += share.Weight

		serving := w.ids(func(i spec.Instance) bool {
			return i.ModelID == share.Entry.ModelID && i.State == spec.InstanceReady
		})
		if share.Weight > 0 && len(serving) == 0 && readyNow(w) > 0 {
			t.Fatalf("%s: traffic for %s, which cannot serve\n%s", name, share.Entry.ModelID, w.describe())
		}
	}

	if sum != 100 {
		t.Fatalf("%s: weights sum to %d\n%s", name, sum, w.describe())
	}
}

// TestAnyHistoryComesToRest throws everything at a service, and then lets the dust settle.
func TestAnyHistoryComesToRest(t *testing.T) {
	t.Parallel()

	for seed := range uint64(histories) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := newWorld()
		w.deploy(randomEntries(rng)...)

		for range 60 {
			disturb(w, rng)
			step(w, rng, 5)
			checkRecords(t, w, seed)

			if rng.IntN(3) == 0 {
				w.settle()
			}
		}

		w.service.Stopped, w.service.UpgradePaused = false, false

		for range 400 {
			w.settle()

			if atRest(w) {
				break
			}

			for _, inst := range w.instances {
				if inst.State == spec.InstanceDraining {
					w.exit(inst.ID, "", false)
				} else {
					w.listen(inst.ID, spec.InstanceReady, "")
				}
			}

			if !w.wake.IsZero() && w.wake.After(w.now) {
				w.now = w.wake
			}
		}

		if !atRest(w) {
			w.describe()

			t.Fatalf("seed %d: wants %+v, generation %d, upgrade %+v, quarantine %v, wakes %v at %v, has\n%s", seed, w.service.Entries,
				w.service.Generation, w.state.Upgrade, w.state.Quarantined, w.wake, w.now, w.describe())
		}
	}
}

// atRest reports whether everything is as wanted.
func atRest(w *world) bool {
	want := 0
	for _, e := range w.service.Entries {
		want += e.InstanceCount

		have := w.ids(func(i spec.Instance) bool {
			return i.State == spec.InstanceReady && i.Template == rollout.Template(&e)
		})
		if len(have) != e.InstanceCount {
			return false
		}
	}

	return len(w.instances) == want && w.state.Upgrade == nil && w.state.Status == spec.ServiceRunning &&
		len(w.state.Superseded) == 0 && len(w.state.Quarantined) == 0
}

func randomEntries(rng *rand.Rand) []spec.Entry {
	entries := make([]spec.Entry, 1+rng.IntN(3))
	weight := 100

	for i, m := range rng.Perm(5)[:len(entries)] {
		mode := modes[rng.IntN(len(modes))]
		entries[i] = entry(fmt.Sprintf("m%d", m), 1+rng.IntN(4))
		entries[i].MaxSurge, entries[i].MaxUnavailable = mode.surge, mode.unavailable
		entries[i].Weight, entries[i].DeployTimeoutSeconds = weight/(len(entries)-i), 60
		weight -= entries[i].Weight
	}

	return entries
}

// disturb does something to the world.
func disturb(w *world, rng *rand.Rand) {
	switch rng.IntN(16) {
	case 0:
		w.deploy(randomEntries(rng)...)
	case 1:
		w.service.Stopped = !w.service.Stopped
	case 2:
		w.crash()
	case 3:
		w.service.UpgradePaused = !w.service.UpgradePaused
	case 4:
		w.service.UpgradeAborted = w.service.Generation
	case 5, 6:
		w.now = w.now.Add(time.Duration(rng.IntN(90)) * time.Second)
	case 7:
		w.now = w.now.Add(-time.Duration(rng.IntN(90)) * time.Second) // clocks jump
	default:
		if len(w.instances) == 0 {
			return
		}

		id := w.instances[rng.IntN(len(w.instances))].ID

		switch rng.IntN(8) {
		case 0:
			w.exit(id, "exit status 1", false)
		case 1:
			w.exit(id, "bad file", true)
		case 2:
			w.listen(id, spec.InstanceLoading, "loading")
		default:
			happen(w, rng)
		}
	}
}

// checkRecords looks at what must hold in any state.
func checkRecords(t *testing.T, w *world, seed uint64) {
	t.Helper()

	seen := map[string]bool{}

	for _, inst := range w.instances {
		if seen[inst.ID] {
			t.Fatalf("seed %d: two records of %s", seed, inst.ID)
		}

		seen[inst.ID] = true
	}

	for id, n := range w.started {
		if n > 1 {
			t.Fatalf("seed %d: %s was started %d times", seed, id, n)
		}
	}

	for id, o := range w.observed {
		if !o.Ended && !seen[id] {
			t.Fatalf("seed %d: process %s has no record\n%s", seed, id, w.describe())
		}
	}

	sum := 0
	for _, share := range rollout.Split(&w.service, &w.state, w.instances) {
		sum += share.Weight
	}

	if sum != 100 {
		t.Fatalf("seed %d: weights sum to %d\n%s", seed, sum, w.describe())
	}
}
