package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// certificates makes what a worker needs to prove itself. It lies in memory, which the worker inherits:
// no file of the machine holds its key.
func (p *process) certificates() (files []*os.File, err error) {
	pair, clients, err := p.owner.cfg.Certify(p.task.ID)
	if err != nil {
		return nil, fmt.Errorf("certify the worker: %w", err)
	}

	for _, data := range [][]byte{pair, clients} {
		f, ferr := inMemory(data)
		if ferr != nil {
			closeAll(files)

			return nil, fmt.Errorf("certify the worker: %w", ferr)
		}

		files = append(files, f)
	}

	return files, nil
}

// inMemory returns a file that has no name and cannot be changed.
func inMemory(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("sluice", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}

	f := os.NewFile(uintptr(fd), "memory")
	if _, err = f.Write(data); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("write a file in memory: %w", err), f.Close())
	}

	return f, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing is lost with it
	}
}

// reachable turns the addresses that a worker listens on into those at which others find it.
func (c *Config) reachable(st *Status) {
	if _, port, err := net.SplitHostPort(st.Address); err == nil && st.Network == "tcp" {
		st.Address = net.JoinHostPort(c.Advertise, port)
	}

	network, address, _ := strings.Cut(st.Link, ":")
	if network == "unix" {
		return
	}

	if _, port, err := net.SplitHostPort(address); err == nil {
		st.Link = network + ":" + net.JoinHostPort(c.Advertise, port)
	}
}
