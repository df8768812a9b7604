package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"time"
)

// startUpstream serves from this process: the processor time of the servers under test is read from the
// system, so that it does not count as theirs.
func startUpstream() (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the whole run
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}

	const timeout = time.Minute

	s := &http.Server{ReadHeaderTimeout: timeout, Handler: http.HandlerFunc(echo)}
	u := &upstream{address: ln.Addr().String(), stop: s.Close}

	go s.Serve(ln) //nolint:errcheck // ends with close

	return u, nil
}

// echo answers GET as a healthy engine, and everything else with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		io.WriteString(w, `{"health":"true"}`) //nolint:errcheck // the client has gone

		return
	}

	// The whole body first: an answer that begins earlier ends the reading.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)

		return
	}

	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) //nolint:errcheck // the client has gone
}

func (u *upstream) close() {
	u.stop() //nolint:errcheck // nothing depends on it any more
}

func asExit(err error, target **exec.ExitError) bool { return errors.As(err, target) }

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}

	return ""
}
