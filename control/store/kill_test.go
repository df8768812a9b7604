package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

const victimDir = "SLUICE_TEST_VICTIM_DIR"

// victim writes documents and tells each one that was acknowledged, until it is killed.
func victim(dir string) {
	e, err := store.StartEmbedded(context.Background(), store.EmbeddedConfig{Dir: dir}, storetest.Logger())
	if err != nil {
		panic(err)
	}

	s := store.New(e.Client(), "")

	for i := 0; ; i++ {
		if err := s.Projects.Create(context.Background(), strconv.Itoa(i), spec.Project{Name: strings.Repeat("x", 100)}); err != nil {
			panic(err)
		}

		_, _ = os.Stdout.WriteString(strconv.Itoa(i) + "\n")
	}
}

func TestAcknowledgedWritesSurviveBeingKilled(t *testing.T) {
	t.Parallel()

	for round := range 3 {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), victimDir+"="+dir)

		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())

		last := -1
		lines := bufio.NewScanner(out)

		for lines.Scan() {
			last, err = strconv.Atoi(lines.Text())
			must(t, err)

			if last == 40*(round+1) {
				must(t, cmd.Process.Kill()) // SIGKILL
			}
		}

		_ = cmd.Wait() // it was killed

		if last < 40*(round+1) {
			t.Fatalf("the victim ended by itself after %d writes", last)
		}

		e := storetest.Start(t, dir)
		items, _, err := store.New(e.Client(), "").Projects.List(t.Context())
		must(t, err)
		e.Close()

		have := make(map[string]bool, len(items))
		for _, it := range items {
			have[it.ID] = len(it.Value.Name) == 100
		}

		for i := range last + 1 {
			if !have[strconv.Itoa(i)] {
				t.Fatalf("write %d of %d was acknowledged and is lost", i, last)
			}
		}

		t.Log(fmt.Sprint(last+1, " acknowledged, ", len(items), " found"))
	}
}
