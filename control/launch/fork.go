package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/sluice-gateway/sluice/spec"
)

// handed is what a process inherits beside its output.
type handed struct {
	files []*os.File // its descriptors 3, 4 and so on
	given []*os.File // those of them that only the process needs, once it runs
	ready *os.File   // our end of the ready pipe, nil for a custom engine
}

// give hands a file down that we do not keep.
func (h *handed) give(f *os.File) {
	h.files = append(h.files, f)
	h.given = append(h.given, f)
}

// fork starts the process. ready is the read end of the ready pipe, nil for a custom engine.
func (p *process) fork(out *output) (ready *os.File, err error) {
	var h handed
	defer func() { closeAll(h.given) }()

	// The context of the command is never ended: stop does the killing.
	cmd, err := p.command(context.Background())
	if p.relay != nil {
		h.given = append(h.given, p.relay)
	}

	if err == nil {
		err = p.handDown(&h)
	}

	if err == nil {
		err = p.begin(cmd, &h, out)
	}

	if err == nil {
		return h.ready, nil
	}

	p.mu.Lock()
	p.untether()
	p.mu.Unlock()

	if h.ready != nil {
		_ = h.ready.Close()
	}

	return nil, err
}

// handDown collects what the process inherits. What it has collected when it fails is for the caller to close.
func (p *process) handDown(h *handed) error {
	if p.outlives() {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("create lifeline: %w", err)
		}

		h.give(r)
		p.hold(w)
	} else {
		h.files = append(h.files, p.owner.lifeline)
	}

	if p.relay != nil {
		h.files = append(h.files, p.relay)
	}

	if p.task.Model.Engine() != spec.EngineONNX {
		return nil
	}

	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("create ready pipe: %w", err)
	}

	h.give(w)
	h.ready = r

	if p.owner.cfg.Certify == nil {
		return nil
	}

	files, err := p.certificates()
	if err != nil {
		return err
	}

	for _, f := range files {
		h.give(f)
	}

	return nil
}

// begin starts the command, unless the process was told to stop meanwhile.
func (p *process) begin(cmd *exec.Cmd, h *handed, out *output) error {
	p.dress(cmd, out)
	cmd.ExtraFiles = h.files

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.requested {
		return errors.New("stopped before it was started")
	}

	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}

	p.cmd = cmd
	out.started()

	return nil
}

// dress gives the command its environment, its output and a process group of its own.
func (p *process) dress(cmd *exec.Cmd, out *output) {
	env, refused := p.environment()
	if len(refused) > 0 {
		p.log.Warn("environment variables refused", slog.Any("names", refused))
	}

	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}

	cmd.SysProcAttr.Setpgid = true
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out.stdoutW, out.stderrW
}
