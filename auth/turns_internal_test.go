package auth

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurnsAreTakenInOrderAndBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(Config{SuspectParallel: 1, SuspectWaiting: 3, SuspectWait: time.Second})
		if !turns.take() {
			t.Fatal("the first had to wait")
		}

		var order, refused atomic.Int64

		for i := range 3 {
			go func() {
				if !turns.take() {
					refused.Add(1)

					return
				}

				if n := order.Add(1); n != int64(i)+1 {
					t.Errorf("number %d came as number %d", i+1, n)
				}

				<-time.After(400 * time.Millisecond)
				turns.give()
			}()
			synctest.Wait()
		}

		if turns.take() {
			t.Error("one more than may wait came in")
		}

		<-time.After(300 * time.Millisecond)
		turns.give()
		<-time.After(2 * time.Second)
		// They begin at 300 and 700 ms; the third has waited for a second by then.
		if order.Load() != 2 || refused.Load() != 1 {
			t.Errorf("%d had a turn and %d gave up, want 2 and 1", order.Load(), refused.Load())
		}
	})
}
