//go:build !linux

package edge

// poller does nothing where the kernel has no POLLRDHUP: a vanished client is noticed
// when its answer cannot be written.
type poller struct{}

func (*poller) add(int)      {}
func (*poller) poll() []bool { return nil }
func (*poller) reset()       {}

// emptyQueue has no portable form.
func (*door) emptyQueue() {}
