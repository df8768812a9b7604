package tunnel

import (
	"testing"
	"time"
)

// TestTrim: memory is given back when sockets are many and calm and it is worth it, and not too often.
func TestTrim(t *testing.T) {
	t.Parallel()

	free := int64(1 << 40)
	tr := trim{spare: func() int64 { return free }}
	now := time.Unix(1000, 0)
	at := func(after time.Duration, opened, open int64, want bool) {
		t.Helper()

		now = now.Add(after)
		tr.opened.Add(opened)

		if got := tr.due(now, open); got != want {
			t.Fatalf("at %v with %d: %v", now.Unix(), open, got)
		}
	}

	at(0, trimFrom-1, trimFrom-1, false)
	at(time.Hour, 0, trimFrom-1, false) // too few
	at(0, 1, trimFrom, false)
	at(trimCalm-1, 0, trimFrom, false)
	at(0, 1, trimFrom, false) // one more has come
	at(trimCalm-1, 0, trimFrom, false)
	at(1, 0, trimFrom, true)
	at(trimEvery-1, 0, trimFrom, false)
	at(1, 0, trimFrom, true)

	free = trimFrom*trimShare - 1

	at(trimEvery, 0, trimFrom, false) // not worth it

	free++

	at(trimEvery, 0, trimFrom, true)

	if got := spare(); got <= 0 {
		t.Errorf("the runtime tells of %d spare bytes", got)
	}
}
