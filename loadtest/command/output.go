package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sluice-gateway/sluice/loadtest/report"
)

// outputs are the files of reports. They are made before the load, so that a wrong name costs no run.
type outputs struct {
	list  []output
	owned []*os.File
}

type output struct {
	w      io.Writer
	render func(io.Writer, *report.Report) error
}

func (s *session) create() (*outputs, error) {
	o := &outputs{}

	for _, want := range []struct {
		flag, name string
		render     func(io.Writer, *report.Report) error
	}{
		{"--json", s.flags.json, report.JSON},
		{"--csv", s.flags.csv, report.CSV},
		{"--html", s.flags.html, report.HTML},
	} {
		switch want.name {
		case "":
		case "-":
			o.list = append(o.list, output{s.stdout, want.render})
		default:
			file, err := os.Create(want.name)
			if err != nil {
				return nil, errors.Join(usage("%s: %w", want.flag, err), o.discard())
			}

			o.list = append(o.list, output{file, want.render})
			o.owned = append(o.owned, file)
		}
	}

	return o, nil
}

// discard removes files that will hold nothing.
func (o *outputs) discard() error {
	errs := make([]error, 0, 2*len(o.owned))

	for _, f := range o.owned {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}

	o.owned = nil

	return errors.Join(errs...)
}

// write renders everything. The table goes to standard output unless a document does.
func (s *session) write(o *outputs) error {
	table := s.stdout
	if s.flags.json == "-" || s.flags.csv == "-" || s.flags.html == "-" {
		table = s.stderr
	}

	errs := make([]error, 0, 1+len(o.list)+len(o.owned))
	errs = append(errs, report.Text(table, s.report))

	for _, out := range o.list {
		errs = append(errs, out.render(out.w, s.report))
	}

	for _, f := range o.owned {
		errs = append(errs, f.Close())
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}

	return nil
}

// hideSecrets takes the values of credentials out of the command line that a report shows.
func hideSecrets(args []string) {
	const hidden = "[redacted]"

	for i, a := range args {
		if name, _, ok := strings.Cut(a, "="); ok && (name == "--token" || name == "--header" || name == "-H") {
			args[i] = name + "=" + hidden
		}

		if i > 0 && (args[i-1] == "--token" || args[i-1] == "--header" || args[i-1] == "-H") {
			args[i] = hidden
		}
	}
}

// isTerminal reports whether w is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}

	info, err := f.Stat()

	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
