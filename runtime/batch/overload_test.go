package batch_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
)

// TestGoodputUnderOverload offers several times what the model can do, in virtual time, and
// counts what was answered within its deadline.
func TestGoodputUnderOverload(t *testing.T) {
	t.Parallel()

	type load struct {
		name        string
		cfg         batch.Config
		fixed, each time.Duration
		deadline    time.Duration
		factor      float64
	}

	loads := []load{
		{"batches", batch.Config{MaxBatchSize: 16}, 4 * ms, ms, 100 * ms, 3},
		{"short deadline", batch.Config{MaxBatchSize: 16}, 4 * ms, ms, 50 * ms, 3},
		{"single", batch.Config{MaxBatchSize: 1}, 2 * ms, 0, 40 * ms, 3},
		{"executors", batch.Config{MaxBatchSize: 8, Executors: 3}, 10 * ms, 0, 80 * ms, 3},
		{"ten times", batch.Config{MaxBatchSize: 16}, 4 * ms, ms, 100 * ms, 10},
		{"priorities", batch.Config{MaxBatchSize: 16, PriorityLevels: 3}, 4 * ms, ms, 100 * ms, 3},
	}

	for _, l := range loads {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, l.cfg, steady(l.fixed, l.each), func(r *rig) {
				size := l.cfg.MaxBatchSize
				capacity := float64(size*max(1, l.cfg.Executors)) / (l.fixed + l.each*time.Duration(size)).Seconds()
				const seconds = 5

				var (
					mu      sync.Mutex
					good    int
					late    int
					refused = map[string]int{}
					slowest time.Duration
				)

				rng := rand.New(rand.NewPCG(7, 7))
				end := time.Now().Add(seconds * time.Second)

				for i := 0; time.Now().Before(end); i++ {
					pass(time.Duration(rng.ExpFloat64() * float64(time.Second) / (capacity * l.factor)))
					r.wg.Go(func() {
						req := request(1, float32(i))
						req.Deadline = time.Now().Add(l.deadline)

						if l.cfg.PriorityLevels > 0 {
							req.Priority = 1 + i%l.cfg.PriorityLevels
						}

						start := time.Now()
						res, err := r.b.Infer(r.t.Context(), req)
						took := time.Since(start)

						mu.Lock()
						defer mu.Unlock()

						if err != nil {
							refused[fault.From(err).Code.Wire()]++
							slowest = max(slowest, took-l.deadline)

							return
						}

						res.Release()

						if took <= l.deadline {
							good++
						} else {
							late++
						}
					})
				}

				r.wg.Wait()
				synctest.Wait()

				goodput := float64(good) / seconds / capacity
				t.Logf("capacity %.0f/s, goodput %.1f %%, late %d, refused %v", capacity, 100*goodput, late, refused)

				if goodput < 0.9 {
					t.Errorf("goodput is %.1f %% of capacity", 100*goodput)
				}

				if late > 0 || slowest > 5*ms {
					t.Errorf("%d answers after their deadline, refusals up to %v after it", late, slowest)
				}
			})
		})
	}
}
