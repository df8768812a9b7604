package auth

import (
	"testing"
	"time"
)

// TestReplayAcrossClockJumps uses a signature again after the time of day was set; the other clock goes on.
func TestReplayAcrossClockJumps(t *testing.T) {
	t.Parallel()

	const (
		start, skew = 1_700_000_000, 900
		hour        = 3600
	)

	type use struct {
		wall, steady int64 // since the first use
		fill         bool  // eight others come first, which may push it out
		fresh        bool
	}

	for name, uses := range map[string][]use{
		"nothing is set":           {{10, 10, false, false}, {skew, skew, false, false}, {skew + 1, skew + 1, false, true}},
		"forward and back":         {{hour, 10, true, true}, {20, 20, false, false}},
		"back, until it is due":    {{10 - hour, 10, false, false}, {10, hour + 10, false, false}, {skew, hour + skew, false, false}},
		"back, and over both ways": {{10 - hour, 10, false, false}, {skew + 1, hour + skew + 1, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := newReplayCache(replayWays)
			sig := [32]byte{1}
			at := func(u use) moment { return moment{start + u.wall, steadyBase + u.steady} }

			if fresh, _ := c.use(&sig, at(use{}), start+skew); !fresh {
				t.Fatal("not fresh at first")
			}

			for i, u := range uses {
				if u.fill {
					for n := range byte(replayWays - 1) {
						c.use(&[32]byte{0, n + 1}, at(u), start+u.wall+skew)
					}

					continue
				}

				if fresh, _ := c.use(&sig, at(u), start+skew); fresh != u.fresh {
					t.Errorf("use %d: fresh %v", i, fresh)
				}
			}
		})
	}
}

func TestTokensAreWithdrawnWhateverTheClock(t *testing.T) {
	t.Parallel()

	u := mustTime(t, "2026-01-01T12:00:00Z")

	for name, tc := range map[string]struct {
		claims     TokenClaims
		validFrom  int64
		generation int64
		want       bool
	}{
		"never withdrawn":                              {TokenClaims{IssuedAt: u}, 0, 0, false},
		"by an earlier release":                        {TokenClaims{IssuedAt: u}, u.UnixMilli() + 1, 0, true},
		"after an earlier release":                     {TokenClaims{IssuedAt: u}, u.UnixMilli(), 0, false},
		"issued by a clock that was ahead":             {TokenClaims{IssuedAt: u.Add(1 << 42)}, u.UnixMilli(), 1, true},
		"withdrawn by a clock that was ahead, and new": {TokenClaims{IssuedAt: u, Generation: 1}, u.Add(1 << 42).UnixMilli(), 1, false},
		"the one before":                               {TokenClaims{IssuedAt: u, Generation: 1}, 0, 2, true},
	} {
		if got := withdrawn(&tc.claims, tc.validFrom, tc.generation); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func mustTime(t *testing.T, text string) time.Time {
	t.Helper()

	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}

	return at
}
