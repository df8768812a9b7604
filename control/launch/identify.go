package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/spec"
)

// identify makes sure that the process runs the instance, and finds out what its launcher told it.
func (a *adopted) identify() (Status, error) {
	env, err := a.proc("environ")
	if err != nil || !slices.Contains(env, instanceEnv+"="+a.task.ID) {
		return Status{}, ErrNotThere
	}

	st := Status{ID: a.task.ID, PID: a.number}
	if a.task.Model.Engine() != spec.EngineCustom {
		return st, nil
	}

	args, err := a.proc("cmdline")
	if err != nil {
		return Status{}, ErrNotThere
	}

	// The engine has the same environment, but no such arguments.
	at := slices.Index(args, "--parent-fd")
	if at < 0 {
		return Status{}, ErrNotThere
	}

	o, _, err := superviseArgs(args[at:])
	if err != nil {
		return Status{}, fmt.Errorf("%w: it was started by another version: %w", ErrNotThere, err)
	}

	if o.orphan <= 0 {
		return Status{}, fmt.Errorf("%w: it ends with the launcher that started it", ErrNotThere)
	}

	if o.user != "" {
		if st.User, err = credential(o.user); err != nil {
			return Status{}, err
		}
	}

	if st.Dir, err = os.Readlink(a.procPath("cwd")); err != nil {
		return Status{}, fmt.Errorf("%w: %w", ErrNotThere, err)
	}

	st.Env = env
	a.port = portOf(env)
	a.cpus, a.log = parseCPUs(o.cpus), o.log
	a.linkLog()

	return st, nil
}

func (a *adopted) procPath(name string) string {
	return filepath.Join("/proc", strconv.Itoa(a.number), name)
}

// proc reads a list of words that end with a zero.
func (a *adopted) proc(name string) ([]string, error) {
	data, err := os.ReadFile(a.procPath(name))
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}

	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), nil
}

// catches reports whether the process has come so far that it handles or ignores these signals.
func (a *adopted) catches(signals ...unix.Signal) bool {
	data, err := os.ReadFile(a.procPath("status"))
	if err != nil {
		return false
	}

	var heeded uint64

	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigCgt" && name != "SigIgn" {
			continue
		}

		if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil {
			heeded |= mask
		}
	}

	for _, sig := range signals {
		if heeded&(1<<(uint(sig)-1)) == 0 { //nolint:gosec // signals are small numbers
			return false
		}
	}

	return true
}

// portOf is the port that an engine was told to use; the last one counts.
func portOf(env []string) int {
	for _, kv := range slices.Backward(env) {
		if text, ok := strings.CutPrefix(kv, "PORT="); ok {
			if port, err := strconv.Atoi(text); err == nil {
				return port
			}
		}
	}

	return 0
}

// linkLog makes the log readable where ours are: its supervisor goes on with the file that it has, which
// may belong to another data directory.
func (a *adopted) linkLog() {
	dir := a.owner.cfg.LogDir
	if dir == "" || a.log == "" || !plainName(a.task.ServiceID) {
		return
	}

	own, err := filepath.Abs(a.owner.LogFile(a.task.ServiceID, a.task.ID))
	if err == nil && own == a.log {
		return
	}

	if err == nil {
		pruneLogs(filepath.Dir(own), keepLogFiles)

		err = os.MkdirAll(filepath.Dir(own), 0o750)
	}

	for _, suffix := range []string{"", rotatedSuffix} {
		if err == nil {
			err = os.Symlink(a.log+suffix, own+suffix)
		}

		if errors.Is(err, fs.ErrExist) { // of an earlier adoption
			err = nil
		}
	}

	if err != nil {
		a.owner.log.Warn("no log of an adopted instance", slog.String("instance", a.task.ID), slog.Any("error", err))
	}
}

// lastLogBytes of a log explain an end.
const lastLogBytes = 4 << 10

// lastWords are the last lines in the log of an engine.
func (a *adopted) lastWords() string {
	const unknown = "it has ended"

	if a.log == "" {
		return unknown
	}

	f, err := os.Open(a.log)
	if err != nil {
		return unknown
	}
	defer func() { _ = f.Close() }()

	if end, err := f.Seek(0, io.SeekEnd); err != nil || end == 0 {
		return unknown
	}

	at, _, err := tailAt(f, tailLines)
	if err != nil {
		return unknown
	}

	data, err := io.ReadAll(io.NewSectionReader(f, at, tailLines*(maxLine+1)))
	if err != nil {
		return unknown
	}

	var t tail

	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\n")
		if remark, ours := strings.CutPrefix(line, ownRemark); ours {
			t.note(remark)
		} else {
			t.add(line)
		}
	}

	return t.reason()
}

// endGroup kills what an engine has left. The number of the group may be somebody else's by now, so
// only what belongs to the instance is killed.
func (a *adopted) endGroup() {
	if a.task.Model.Engine() != spec.EngineCustom {
		return
	}

	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // nothing else to go by
	}

	mark := []byte(instanceEnv + "=" + a.task.ID + "\x00")

	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}

		a.killMember(pid, mark)
	}
}

func (a *adopted) killMember(pid int, mark []byte) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))

	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return // it has ended
	}

	if group, _, ok := parseStat(stat); !ok || group != a.number {
		return
	}

	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()

	env, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err == nil && bytes.Contains(env, mark) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended
	}
}
