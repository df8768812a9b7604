package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sluice-gateway/sluice/internal/procs"
	"github.com/sluice-gateway/sluice/spec"
)

// Descriptors that a worker finds open, see docs/architecture.md.
const (
	parentFD = 3
	readyFD  = 4
	relayFD  = 4 // of a supervisor
	pairFD   = 5
	clientFD = 6
)

// passedOn are the variables of our own environment that processes get. Everything else,
// secrets above all, stays here.
//
//nolint:gochecknoglobals // a constant list
var passedOn = []string{
	"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
	"ONNXRUNTIME_LIB", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "OMP_NUM_THREADS",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH",
}

var passedOnPrefixes = []string{"LC_", "NVIDIA_"} //nolint:gochecknoglobals // a constant list

// baseEnv filters the environment of this process.
func baseEnv(environ []string) []string {
	var out []string

	for _, kv := range environ {
		key, _, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}

		if slices.Contains(passedOn, key) ||
			slices.ContainsFunc(passedOnPrefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			out = append(out, kv)
		}
	}

	return out
}

// reserved reports whether a user may not set the variable for our own worker: it would
// choose the code that runs in it.
func reserved(key string) bool {
	return strings.HasPrefix(key, "LD_") || key == "ONNXRUNTIME_LIB" || key == "PATH" || key == "GODEBUG"
}

func validEnvKey(key string) bool {
	return key != "" && !strings.ContainsAny(key, "=\x00")
}

// environment of the task's process: ours (filtered), the configured one, the package's,
// the entry's, and what we set ourselves. Later ones win.
func (p *process) environment() (env, refused []string) {
	env = append(baseEnv(os.Environ()), p.owner.cfg.Env...)

	worker := p.task.Model.Engine() == spec.EngineONNX
	for _, set := range []map[string]string{p.task.Model.Config.Envs, p.task.Envs} {
		for key, value := range set {
			if !validEnvKey(key) || strings.ContainsRune(value, 0) || worker && reserved(key) {
				refused = append(refused, key)

				continue
			}

			env = append(env, key+"="+value)
		}
	}

	if worker {
		env = append(env, procs.Wakeful)
	}

	env = append(env, instanceEnv+"="+p.task.ID, "SLUICE_MODEL="+p.task.Model.Name,
		"SLUICE_VERSION="+p.task.Model.Version)
	if p.port > 0 {
		env = append(env, "PORT="+strconv.Itoa(p.port))
	}

	return env, refused
}

// command builds the command of the task. ctx ends only to kill the process.
func (p *process) command(ctx context.Context) (*exec.Cmd, error) {
	switch kind := p.task.Model.Engine(); kind {
	case spec.EngineONNX:
		return p.workerCommand(ctx), nil
	case spec.EngineCustom:
		return p.customCommand(ctx)
	case spec.EngineExternal:
		return nil, errors.New("an external engine has no process")
	default:
		return nil, fmt.Errorf("unknown engine %q", kind)
	}
}

func (p *process) workerCommand(ctx context.Context) *exec.Cmd {
	m, cfg := p.task.Model, &p.owner.cfg
	args := append([]string{
		"serve", "--package", cfg.packageDir(&m.Package), "--model", m.Name, "--version", m.Version,
		"--listen", net.JoinHostPort(cfg.ListenHost, "0"),
		"--ready-fd", strconv.Itoa(readyFD), "--parent-fd", strconv.Itoa(parentFD),
	}, cfg.RuntimeArgs...)

	if d := p.task.Direct; d != nil {
		door := net.JoinHostPort(cfg.Direct.Host, "0")
		args = append(args, "--direct", door, "--direct-grpc", door)
		args = append(args, p.directArgs("--direct-")...)
	}

	if cfg.Certify != nil {
		pair := "/proc/self/fd/" + strconv.Itoa(pairFD)
		args = append(args, "--link-cert", pair, "--link-key", pair, "--link-client-ca", "/proc/self/fd/"+strconv.Itoa(clientFD), "--link-http")
	}

	if m.Package.TreeSHA256 != "" {
		args = append(args, "--tree-sha256", m.Package.TreeSHA256) // checked at every load
	}

	return exec.CommandContext(ctx, cfg.Runtime, args...) //nolint:gosec // the configured binary; no shell
}

func (p *process) customCommand(ctx context.Context) (*exec.Cmd, error) {
	m, cfg := p.task.Model, &p.owner.cfg
	if len(m.Config.Command) == 0 {
		return nil, errors.New(`the package has no "command", and this machine runs no images`)
	}

	dir := cfg.packageDir(&m.Package)
	if wd := m.Config.WorkingDir; wd != "" {
		if !filepath.IsLocal(wd) {
			return nil, fmt.Errorf("working_dir %q leaves the package", wd)
		}

		dir = filepath.Join(dir, wd)
	}

	port, err := p.choosePort(ctx)
	if err != nil {
		return nil, err
	}

	args := slices.Clone(cfg.Supervisor[1:])
	args = append(args, "--parent-fd", strconv.Itoa(parentFD))

	outlive, err := p.outliveArgs()
	if err != nil {
		return nil, err
	}

	args = append(args, outlive...)

	if p.task.Direct != nil {
		if err := p.openRelay(ctx); err != nil {
			return nil, err
		}

		args = append(args, "--relay-fd", strconv.Itoa(relayFD), "--target", p.engineURL(port))
		args = append(args, p.directArgs("--")...)
	}

	// The supervisor, who may enter the data directory, hands its working directory down to the user.
	if name := m.Config.User; name != "" {
		if p.user, err = credential(name); err != nil {
			return nil, err
		}

		args = append(args, "--user", name)
	}

	if limit := p.task.MemoryLimit; limit > 0 {
		args = append(args, "--data-limit", strconv.FormatInt(limit, 10))
	}

	if p.cpus = p.owner.takeCPUs(p.task.CPULimit); len(p.cpus) > 0 {
		args = append(args, "--cpus", cpuList(p.cpus))
	}

	p.tellShare()

	args = append(args, "--")

	for _, a := range m.Config.Command {
		args = append(args, expandPort(a, strconv.Itoa(port)))
	}

	cmd := exec.CommandContext(ctx, cfg.Supervisor[0], args...) //nolint:gosec // running the package is the purpose
	cmd.Dir = dir

	return cmd, nil
}

// outlives reports whether the process is a custom engine that may outlive this one.
func (p *process) outlives() bool {
	return p.owner.cfg.Orphan > 0 && p.task.Model.Engine() == spec.EngineCustom
}

// outliveArgs tell a supervisor how to do without a launcher.
func (p *process) outliveArgs() ([]string, error) {
	if !p.outlives() {
		return nil, nil
	}

	cfg := &p.owner.cfg
	args := []string{"--orphan", cfg.Orphan.String(), "--grace", cfg.OrphanGrace.String()}

	if cfg.LogDir == "" {
		return args, nil
	}

	// It works in the package's directory.
	path, err := filepath.Abs(p.owner.LogFile(p.task.ServiceID, p.task.ID))
	if err != nil {
		return nil, fmt.Errorf("name the log file: %w", err)
	}

	return append(args, "--log", path, "--log-max", strconv.FormatInt(cfg.MaxLogBytes, 10)), nil
}

// expandPort puts the port in the place of $PORT and ${PORT}. Everything else stays, for the engine or a
// shell to see.
func expandPort(arg, port string) string {
	var out strings.Builder

	for {
		before, after, found := strings.Cut(arg, "$")
		out.WriteString(before)

		if !found {
			return out.String()
		}

		rest, braces := strings.CutPrefix(after, "{PORT}")
		plain := strings.TrimPrefix(after, "PORT")

		switch {
		case braces:
			out.WriteString(port)
		case len(plain) < len(after) && (plain == "" || !nameByte(plain[0])):
			out.WriteString(port)

			rest = plain
		default:
			out.WriteByte('$')
		}

		arg = rest
	}
}

// nameByte reports whether c may stand in the name of a variable.
func nameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// choosePort takes the package's port or a free one that no other process of ours was told to use.
func (p *process) choosePort(ctx context.Context) (int, error) {
	if p.task.Model.Config.Port > 0 {
		p.port = p.task.Model.Config.Port

		return p.port, nil
	}

	const tries = 20

	for range tries {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}

		addr, _ := ln.Addr().(*net.TCPAddr)
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}

		if addr != nil && p.owner.reservePort(addr.Port) {
			p.port = addr.Port

			return p.port, nil
		}
	}

	return 0, errors.New("find a free port: every candidate is taken")
}

func (l *Local) reservePort(port int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	if _, taken := l.ports[port]; taken {
		return false
	}

	l.ports[port] = struct{}{}

	return true
}

func (l *Local) takeCPUs(limit float64) []int {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.cpus.take(limit)
}

// credential finds the user that an engine runs as; name may be a number.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("run as user %q: %w", name, err)
		}
	}

	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("run as user %q: uid %q: %w", name, u.Uid, err)
	}

	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("run as user %q: gid %q: %w", name, u.Gid, err)
	}

	if int(uid) == os.Getuid() {
		return nil, nil //nolint:nilnil // nil means "as we are"
	}

	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
