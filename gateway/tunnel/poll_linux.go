package tunnel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// poller starts parked pumps when their connections have something to read. It watches the same
// sockets as the runtime's own poller; each watch is for one event and must be renewed.
type poller struct {
	fd   int
	wake [2]int // a pipe: closing its second end stops run

	mu    sync.Mutex // guards the rest
	slots []pollSlot
	free  []int
	done  bool
}

// pollSlot is what an event refers to. turn tells a late event for an earlier pump from one for the pump
// that has the slot now.
type pollSlot struct {
	pump *pump
	turn int32
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}

	w := &poller{fd: fd}
	if err := unix.Pipe2(w.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("pipe2", err), unix.Close(fd))
	}

	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, w.wake[0], &ev); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), w.close())
	}

	return w, nil
}

func (w *poller) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()

	w.done = true

	return errors.Join(unix.Close(w.fd), unix.Close(w.wake[0]))
}

// arm watches the connection of a parked pump once.
func (w *poller) arm(p *pump) bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	if w.done {
		return false
	}

	op := unix.EPOLL_CTL_MOD

	if p.slot < 0 {
		op = unix.EPOLL_CTL_ADD

		if n := len(w.free); n > 0 {
			p.slot = w.free[n-1]
			w.free = w.free[:n-1]
		} else {
			p.slot = len(w.slots)
			w.slots = append(w.slots, pollSlot{})
		}

		w.slots[p.slot].pump = p
	}

	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
		Fd:     int32(p.slot), Pad: w.slots[p.slot].turn,
	}

	var ctl error

	// Control keeps the descriptor from being closed, and its number from being used again, meanwhile.
	err := p.from.raw.Control(func(fd uintptr) { ctl = unix.EpollCtl(w.fd, op, int(fd), &ev) })

	return err == nil && ctl == nil
}

// remove forgets a pump. Closing its connection ends the watch; an event that is on its way
// finds another turn.
func (w *poller) remove(p *pump) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if p.slot < 0 || w.done {
		return
	}

	_ = p.from.raw.Control(func(fd uintptr) { _ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, int(fd), nil) })

	w.slots[p.slot] = pollSlot{turn: w.slots[p.slot].turn + 1}
	w.free = append(w.free, p.slot)
	p.slot = -1
}

// run starts pumps until stop.
func (w *poller) run(s *Set) error {
	events := make([]unix.EpollEvent, 256)

	for {
		n, err := unix.EpollWait(w.fd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("tunnel: %w", os.NewSyscallError("epoll_wait", err))
		}

		for i := range max(n, 0) {
			ev := &events[i]
			if ev.Fd < 0 {
				return w.close()
			}

			s.running.Add(1)

			if p := w.take(ev); p != nil {
				go p.run()
			} else {
				s.running.Done()
			}
		}
	}
}

// take finds the pump of an event and makes it run; nil if it is parked no more.
func (w *poller) take(ev *unix.EpollEvent) *pump {
	w.mu.Lock()
	defer w.mu.Unlock()

	slot := &w.slots[ev.Fd]
	if slot.turn != ev.Pad || slot.pump == nil || !slot.pump.state.CompareAndSwap(pumpParked, pumpRunning) {
		return nil
	}

	return slot.pump
}

func (w *poller) stop() { _ = unix.Close(w.wake[1]) }
