//go:build !linux

package tunnel

// poller does not exist here: parked pumps keep their goroutines.
type poller struct{ quit chan struct{} }

func newPoller() (*poller, error) { return &poller{quit: make(chan struct{})}, nil }

func (*pump) reader() func(fd uintptr) bool { return nil }

func (*poller) arm(*pump) bool { return false }

func (*poller) remove(*pump) {}

func (w *poller) run(*Set) error {
	<-w.quit

	return nil
}

func (w *poller) stop() { close(w.quit) }
