package rollout_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-gateway/sluice/spec"
)

var rewrite = flag.Bool("rewrite", false, "write what scenarios really say into testdata")

// TestScenarios plays the scenarios in testdata: commands, a line "----", and what follows from them.
//
//	deploy MODEL xN [w=WEIGHT] [surge=F] [unavailable=F] [timeout=S] [grace=S] [env=K], MODEL …
//	ready|loading|warming|draining ID|all   what a probe finds
//	exit ID|draining REASON…         the process ends; "exit!" means: trying again is hopeless
//	hang ID                          it does not answer any more
//	advance DURATION                 time passes
//	stop, start, delete, pause, resume, abort, stop-at DURATION
//	crash                            control ends, and every process with it
//	next-crashes                     control will crash after the records of the next command
//	                                 are written and before anything is done
func TestScenarios(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()

			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}

			got := play(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}

				return
			}

			if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// play runs a scenario and returns it with what really followed.
func play(t *testing.T, text string) string {
	t.Helper()

	var out strings.Builder

	w := newWorld()

	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, expects := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n")

		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				command(t, w, line)
			}
		}

		if expects {
			out.WriteString("----\n" + w.describe())
		}

		out.WriteString("\n")
	}

	return strings.TrimRight(out.String(), "\n") + "\n"
}

func command(t *testing.T, w *world, line string) {
	t.Helper()

	verb, rest, _ := strings.Cut(line, " ")
	id, reason, _ := strings.Cut(rest, " ")

	switch verb {
	case "deploy":
		w.deploy(entries(t, rest)...)
	case "ready", "loading", "warming", "draining":
		for _, id := range which(w, id) {
			w.listen(id, spec.InstanceState(verb), reason)
		}
	case "failed":
		w.listen(id, spec.InstanceFailed, reason)
	case "exit", "exit!":
		for _, id := range which(w, id) {
			w.exit(id, reason, verb == "exit!")
		}
	case "hang":
		o := w.observed[id]
		o.Hung, o.Reason = true, reason
		w.observed[id] = o
	case "advance", "stop-at":
		d, err := time.ParseDuration(rest)
		if err != nil {
			t.Fatal(err)
		}

		if verb == "stop-at" {
			w.service.StopAt = w.now.Add(d).UnixMilli()
		} else {
			w.now = w.now.Add(d)
		}
	case "crash":
		w.crash()
	case "next-crashes":
		w.doomed = true

		return
	default:
		wish(t, w, verb)
	}

	if w.doomed {
		w.doomed = false
		w.record()
		w.crash()

		return
	}

	w.settle()
}

// wish changes what users want in one word.
func wish(t *testing.T, w *world, verb string) {
	t.Helper()

	switch verb {
	case "stop":
		w.service.Stopped = true
	case "start":
		w.service.Stopped = false
	case "delete":
		w.service.Deleting = true
	case "pause":
		w.service.UpgradePaused = true
	case "resume":
		w.service.UpgradePaused = false
	case "abort":
		w.service.UpgradeAborted = w.service.Generation
	default:
		t.Fatalf("unknown command %q", verb)
	}
}

// which are the instances that a word means.
func which(w *world, word string) []string {
	switch word {
	case "all":
		return w.ids(func(i spec.Instance) bool { return i.State != spec.InstanceDraining && i.State != spec.InstanceFailed })
	case "draining":
		return w.ids(func(i spec.Instance) bool { return i.State == spec.InstanceDraining })
	default:
		return strings.Split(word, ",")
	}
}

func entries(t *testing.T, text string) []spec.Entry {
	t.Helper()

	var out []spec.Entry

	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		e := spec.Entry{ModelID: words[0], ModelName: words[0], ModelVersion: "1.0.0", Weight: 100, MaxSurge: 1, InstanceCount: 1}

		for _, word := range words[1:] {
			var err error

			key, value, _ := strings.Cut(word, "=")

			switch {
			case strings.HasPrefix(word, "x"):
				e.InstanceCount, err = strconv.Atoi(word[1:])
			case key == "w":
				e.Weight, err = strconv.Atoi(value)
			case key == "surge":
				e.MaxSurge, err = strconv.ParseFloat(value, 64)
			case key == "unavailable":
				e.MaxUnavailable, err = strconv.ParseFloat(value, 64)
			case key == "timeout":
				e.DeployTimeoutSeconds, err = strconv.Atoi(value)
			case key == "grace":
				e.TerminationGraceSeconds, err = strconv.Atoi(value)
			case key == "env":
				e.Envs = map[string]string{value: "1"}
			default:
				err = fmt.Errorf("unknown word %q", word)
			}

			if err != nil {
				t.Fatalf("%s: %v", part, err)
			}
		}

		out = append(out, e)
	}

	return out
}
