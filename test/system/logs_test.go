package system_test

import (
	"bufio"
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verb prepares a client verb against s, to be run.
func (s *sluice) verb(ctx context.Context, args ...string) *exec.Cmd {
	s.t.Helper()

	bin, err := binaries()
	if err != nil {
		s.t.Fatal(err)
	}

	cmd := exec.CommandContext(ctx, filepath.Join(bin, "sluice"), append(args, "--data", s.data)...)
	cmd.Env = append(os.Environ(), "SLUICE_TOKEN="+s.token)

	return cmd
}

// TestLogsOfCustomEngines reads what engines print, through the API and the command line.
func TestLogsOfCustomEngines(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	u, id := s.engine("talks", 2, nil, nil)

	say := func(line string) {
		t.Helper()

		if a := s.call("POST", u+"/say?line="+url.QueryEscape(line), nil); a.Status != 200 {
			t.Fatalf("say: %d %s", a.Status, a.Body)
		}
	}

	say("the first line")

	list := s.call("GET", s.api("/services/"+id+"/instances"), nil).json(t)

	instances, _ := list["instances"].([]any)
	if len(instances) != 2 {
		t.Fatalf("instances %v", list)
	}

	first, _ := instances[0].(map[string]any)
	if first["state"] != "ready" || first["pid"] == 0.0 || first["node"] == "" {
		t.Errorf("instance %v", first)
	}

	one, _ := first["instance_id"].(string)

	a := s.call("GET", s.api("/services/"+id+"/instances/"+one+"/logs?tail=100"), nil)
	if a.Status != 200 || !strings.Contains(string(a.Body), "engine listens on 127.0.0.1:") || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("log: %d %s", a.Status, a.Body)
	}

	for path, want := range map[string]int{
		"/services/" + id + "/instances/nobody/logs":                 404,
		"/services/" + id + "/instances/..%2f..%2fx/logs":            404,
		"/services/" + id + "/instances/" + one + "/logs?tail=-1":    400,
		"/services/" + id + "/instances/" + one + "/logs?follow=may": 400,
	} {
		if a := s.call("GET", s.api(path), nil); a.Status != want {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}

	out, err := s.verb(t.Context(), "service", "logs", "talks").CombinedOutput()
	if err != nil || !strings.Contains(string(out), one+" ") || !strings.Contains(string(out), "the first line") {
		t.Errorf("logs: %v\n%s", err, out)
	}

	s.followLogs(t, u, say)
}

// followLogs kills an instance while its log is followed: the log of the next one follows.
func (s *sluice) followLogs(t *testing.T, u string, say func(string)) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	cmd := s.verb(ctx, "service", "logs", "talks", "-f", "--tail", "1")

	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	defer cmd.Wait()

	lines := make(chan string, 1000)

	go func() {
		defer close(lines)

		for sc := bufio.NewScanner(pipe); sc.Scan(); {
			lines <- sc.Text()
		}
	}()

	until := func(want string) {
		t.Helper()

		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the log ended before %q", want)
				}

				if strings.Contains(line, want) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no line with %q", want)
			}
		}
	}

	say("marker one")
	until("marker one")

	// Two deaths: whichever instance was asked, a new one comes, and its log too.
	s.try("POST", u+"/die", nil)
	until("engine listens")
	cancel()
}
