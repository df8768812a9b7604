package runner_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// helperEnv makes the test binary play sluice-runtime.
const helperEnv = "SLUICE_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "worker" {
		exit(worker())
	}

	exit(m.Run())
}

func exit(status int) { os.Exit(status) } //nolint:forbidigo // the test binary plays another program

// worker behaves as the file "mode" in its package says; the default is to serve.
func worker() int {
	mode, _ := os.ReadFile(filepath.Join(os.Args[3], "mode"))

	go func() {
		_, _ = os.NewFile(3, "parent").Read(make([]byte, 1))
		exit(9)
	}()

	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}

	ready := os.NewFile(4, "ready")
	_ = json.NewEncoder(ready).Encode(map[string]any{"http": ln.Addr().String()})
	_ = ready.Close()

	exit := make(chan int, 9)

	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			switch string(mode) {
			case "broken":
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(`{"health":"false","state":"failed","reason":"model.onnx is no model"}`))

				fmt.Fprintln(os.Stderr, "model.onnx is no model")
				// As the real worker: the reason can be read for a moment.
				time.AfterFunc(100*time.Millisecond, func() { exit <- 3 })
			case "slow":
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(`{"health":"false","state":"loading"}`))
			default:
				_, _ = w.Write([]byte(`{"health":"true"}`))
			}
		}))
	}()

	select {
	case <-term:
		return 0
	case code := <-exit:
		return code
	}
}
