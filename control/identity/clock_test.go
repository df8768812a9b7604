package identity_test

import (
	"testing"
	"time"
)

// TestPasswordChangeEndsTokensWhateverTheClock changes a password while the clock is right, after it was ahead,
// and while it is ahead: tokens of before end, those of after are good at once.
func TestPasswordChangeEndsTokensWhateverTheClock(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct{ login, change, after time.Duration }{
		"set back before the change": {login: time.Hour, change: 0, after: 0},
		"set back after the change":  {login: 0, change: time.Hour, after: 0},
		"set forward":                {login: 0, change: time.Hour, after: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p := start(t)
			id := p.user(p.admin(), "bob")

			p.offset.Store(int64(tc.login))
			stolen := p.login("bob", "Pass-word-1")
			p.want(p.call("GET", "/v3/users/"+id, stolen, nil), 200)

			p.offset.Store(int64(tc.change))
			admin := p.admin()
			p.want(p.call("PATCH", "/v3/users/"+id, admin, `{"user":{"password":"New-word-2"}}`), 200)

			p.offset.Store(int64(tc.after))
			fresh := p.login("bob", "New-word-2")
			p.want(p.call("GET", "/v3/users/"+id, fresh, nil), 200)

			// When the stolen one was issued, at the latest.
			p.offset.Store(int64(max(tc.login, tc.after)))
			p.want(p.call("GET", "/v3/users/"+id, stolen, nil), 401)
		})
	}
}
