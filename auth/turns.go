package auth

import "time"

// turns let a few costly verifications run at a time, in the order in which they came.
type turns struct {
	running, places chan struct{}
	wait            time.Duration
}

func newTurns(cfg Config) *turns {
	return &turns{
		running: make(chan struct{}, cfg.SuspectParallel), places: make(chan struct{}, cfg.SuspectWaiting),
		wait: cfg.SuspectWait,
	}
}

// take reports whether it is the caller's turn; then the caller gives it back.
func (t *turns) take() bool {
	select {
	case t.running <- struct{}{}:
		return true
	default:
	}

	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	default:
		return false
	}

	timer := time.NewTimer(t.wait)
	defer timer.Stop()

	select {
	case t.running <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (t *turns) give() { <-t.running }
