package launch_test

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/control/launch"
)

func TestOnlyThePortIsExpanded(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	m := customModel(t.TempDir())
	m.Config.Port = 4711
	m.Config.Command = []string{
		"/usr/bin/printf", "[%s]", "$PORT", "${PORT}", "--p=$PORT,", "$PORTS", "${PORT:-80}", "$HOME", "a$", "$$", "$1$PORT$PORT", "{PORT}",
	}
	ch := start(t, l, "a", m)

	next(t, ch, launch.PhaseListening)
	next(t, ch, launch.PhaseEnded)

	want := "[4711][4711][--p=4711,][$PORTS][${PORT:-80}][$HOME][a$][$$][$147114711][{PORT}]"
	if got := strings.TrimSpace(logOf(t, l, "a", -1)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
