package wire

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller waits for sockets with the precision of the kernel's high resolution timers.
type poller struct {
	ep, wake int
	events   [256]unix.EpollEvent
	coarse   bool // the kernel has no epoll_pwait2
	spun     time.Duration
}

func newPoller() (*poller, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}

	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(ep))
	}

	p := &poller{ep: ep, wake: wake}

	if err := p.add(wake); err != nil {
		p.close()

		return nil, err
	}

	return p, nil
}

func (p *poller) close() {
	unix.Close(p.ep)   //nolint:errcheck // nothing is buffered in it
	unix.Close(p.wake) //nolint:errcheck // as above
}

const reading = unix.EPOLLIN | unix.EPOLLRDHUP

func (p *poller) add(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: reading, Fd: int32(fd)}))
}

// writing asks, or no longer asks, for room to write beside bytes to read.
func (p *poller) writing(fd int, on bool) error { //nolint:revive // on is what is asked for
	e := unix.EpollEvent{Events: reading, Fd: int32(fd)}
	if on {
		e.Events |= unix.EPOLLOUT
	}

	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.ep, unix.EPOLL_CTL_MOD, fd, &e))
}

// wakeUp makes a wait return. It may be called from any goroutine.
func (p *poller) wakeUp() {
	var one [8]byte

	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(p.wake, one[:]) //nolint:errcheck // full means that it wakes up already
}

func (p *poller) drainWake() {
	var b [8]byte

	unix.Read(p.wake, b[:]) //nolint:errcheck // empty is fine
}

// wait returns events, none if the time is over first. The last part of the time, up to spin, it does not sleep:
// a processor that sleeps takes tens of microseconds to wake up, most of all in a virtual machine.
func (p *poller) wait(timeout, spin time.Duration) ([]unix.EpollEvent, error) {
	timeout = max(timeout, 0)

	if spin <= 0 || timeout == 0 {
		return p.sleep(timeout)
	}

	began := time.Now()

	if timeout > spin {
		events, err := p.sleep(timeout - spin)
		if len(events) > 0 || err != nil {
			return events, err
		}
	}

	return p.spin(began.Add(timeout))
}

// sleep waits in the kernel.
func (p *poller) sleep(timeout time.Duration) ([]unix.EpollEvent, error) {
	var (
		n   int
		err error
	)

	if timeout == 0 {
		n, err = p.look()
	} else {
		n, err = p.block(timeout)
	}

	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}

	if err != nil {
		return nil, os.NewSyscallError("epoll_wait", err)
	}

	return p.events[:n], nil
}

// spin looks for events until the time has come. Between two looks it offers the processor to whoever wants it.
func (p *poller) spin(end time.Time) ([]unix.EpollEvent, error) {
	// What one look and one offer take at most; if it was longer, somebody else had the processor.
	const own = 5 * time.Microsecond

	for now := time.Now(); ; {
		events, err := p.sleep(0)
		if len(events) > 0 || err != nil {
			return events, err
		}

		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) //nolint:errcheck // cannot fail

		then := now
		now = time.Now()
		p.spun += min(now.Sub(then), own)

		if !now.Before(end) {
			return nil, nil
		}
	}
}

// look does not wait. A call that returns at once needs none of what the runtime does around calls that may not.
func (p *poller) look() (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}

	return int(n), nil
}

func (p *poller) block(timeout time.Duration) (int, error) {
	ts := unix.NsecToTimespec(int64(timeout))

	if p.coarse {
		// ppoll of the epoll descriptor is as precise as epoll_pwait2, and older.
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(p.ep), Events: unix.POLLIN}}, &ts, nil); err != nil {
			return 0, err //nolint:wrapcheck // the caller does
		}

		return p.look()
	}

	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)

	if errno == unix.ENOSYS {
		p.coarse = true

		return p.block(timeout)
	}

	if errno != 0 {
		return 0, errno
	}

	return int(n), nil
}

// sharpTimers asks the kernel not to delay the timers of this thread by its usual 50 µs.
func sharpTimers() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0))
}

// shortSlice asks for short turns on the processor, which come sooner: a thread that wakes up to send
// need not wait for the turn of another one to end. Kernels before 6.12 ignore it, and so does this tool.
func shortSlice() {
	const slice = 100_000 // ns, the least that the kernel takes

	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // somebody has chosen another policy
	}

	attr.Flags, attr.Runtime = 0, slice
	unix.SchedSetAttr(0, attr, 0) //nolint:errcheck // see above
}

// threadCPU is the processor time of this thread.
func threadCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}

	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
