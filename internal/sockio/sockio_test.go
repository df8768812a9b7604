package sockio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

// pair is a connection of the kind, both ends.
func pair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()

	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}

	var lc net.ListenConfig

	ln, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()

	accepted := make(chan net.Conn, 1)

	go func() {
		if c, err := ln.Accept(); err == nil {
			accepted <- c
		}
	}()

	var d net.Dialer
	if near, err = d.DialContext(t.Context(), network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}

	far = <-accepted

	t.Cleanup(func() { near.Close(); far.Close() })

	return near, far
}

// kinds runs f over TCP, over a Unix socket, and over a connection that is no plain socket.
func kinds(t *testing.T, f func(t *testing.T, near, far net.Conn)) {
	t.Helper()

	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()

			near, far := pair(t, network)
			f(t, near, far)
		})
	}

	t.Run("wrapped", func(t *testing.T) {
		t.Parallel()

		near, far := pair(t, "tcp")
		f(t, struct{ net.Conn }{near}, far)
	})
}

func TestConnCarriesMoreThanTheSocketTakes(t *testing.T) {
	t.Parallel()

	kinds(t, func(t *testing.T, near, far net.Conn) {
		t.Helper()

		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
		sent := make(chan error, 1)

		go func() {
			_, err := sockio.Wrap(far).Write(want)
			sent <- errors.Join(err, far.Close())
		}()

		got, err := io.ReadAll(sockio.Wrap(near))
		if err != nil || <-sent != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
		}
	})
}

func TestQuickNeverWaits(t *testing.T) {
	t.Parallel()

	near, far := pair(t, "tcp")
	q := sockio.New(near)
	block := make([]byte, 1<<20)

	total := 0

	for {
		n, err := q.Write(block)
		if err != nil {
			t.Fatal(err)
		}

		if total += n; n < len(block) {
			break
		}
	}

	if n, err := io.CopyN(io.Discard, far, int64(total)); err != nil {
		t.Errorf("%d of %d bytes came: %v", n, total, err)
	}

	if n, err := sockio.New(struct{ net.Conn }{near}).Write(block); n != 0 || err != nil {
		t.Errorf("wrote %d bytes past what is no socket: %v", n, err)
	}

	far.Close()

	for range 100 {
		if _, err := q.Write(block); err != nil {
			return
		}

		time.Sleep(time.Millisecond) //nolint:forbidigo // the reset comes by the network
	}

	t.Error("writing to a closed connection never failed")
}

func TestReaderKeepsDeadlines(t *testing.T) {
	t.Parallel()

	kinds(t, func(t *testing.T, near, far net.Conn) {
		t.Helper()

		r := sockio.NewReader(near)
		buf := make([]byte, 8)

		// One that has passed, one that comes while reading waits, and one that another sets meanwhile.
		near.SetReadDeadline(time.Unix(1, 0))

		if n, err := r.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}

		near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))

		if n, err := r.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}

		near.SetReadDeadline(time.Time{})
		time.AfterFunc(10*time.Millisecond, func() { near.SetReadDeadline(time.Unix(1, 0)) })

		if n, err := r.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v", n, err)
		}

		near.SetReadDeadline(time.Time{})

		if _, err := far.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}

		if n, err := r.Read(buf); err != nil || string(buf[:n]) != "late" {
			t.Errorf("%q, %v", buf[:n], err)
		}
	})
}

func TestReaderTellsEnds(t *testing.T) {
	t.Parallel()

	kinds(t, func(t *testing.T, near, far net.Conn) {
		t.Helper()

		r := sockio.NewReader(near)

		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("nothing: %d, %v", n, err)
		}

		far.Write([]byte("x"))
		far.Close()

		buf := make([]byte, 8)
		if n, err := r.Read(buf); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}

		if n, err := r.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %d, %v", n, err)
		}

		near.Close()

		if n, err := r.Read(buf); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %d, %v", n, err)
		}
	})
}

func TestReaderTellsResets(t *testing.T) {
	t.Parallel()

	near, far := pair(t, "tcp")
	far.(*net.TCPConn).SetLinger(0)
	far.Close()

	var (
		n      int
		err    error
		failed net.Error
	)

	if n, err = sockio.NewReader(near).Read(make([]byte, 8)); n != 0 || !errors.As(err, &failed) || failed.Timeout() {
		t.Errorf("%d, %v", n, err)
	}
}

func TestPeekerSeesWhatComesAndTakesNothing(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		name  string
		quiet bool
		do    func(near, far net.Conn)
	}{
		{"silence", true, func(net.Conn, net.Conn) {}},
		{"a byte", false, func(_, far net.Conn) { far.Write([]byte("x")) }},
		{"the end", false, func(_, far net.Conn) { far.Close() }},
		{"half an end", false, func(_, far net.Conn) { far.(*net.TCPConn).CloseWrite() }},
		{"a reset", false, func(_, far net.Conn) {
			far.(*net.TCPConn).SetLinger(0)
			far.Close()
		}},
		{"closed here", false, func(near, _ net.Conn) { near.Close() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			near, far := pair(t, "tcp")
			p := sockio.NewPeeker(near)

			if !p.Quiet() {
				t.Error("not quiet before")
			}

			tc.do(near, far)

			for range 100 {
				if p.Quiet() == tc.quiet {
					break
				}

				time.Sleep(time.Millisecond) //nolint:forbidigo // it comes by the network
			}

			if p.Quiet() != tc.quiet {
				t.Errorf("quiet is %v", !tc.quiet)
			}
		})
	}

	near, far := pair(t, "unix")
	p := sockio.NewPeeker(near)
	far.Write([]byte("x"))

	buf := make([]byte, 2)
	if n, err := near.Read(buf); p.Quiet() != true || n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}

	if !sockio.NewPeeker(struct{ net.Conn }{near}).Quiet() {
		t.Error("what cannot be looked at is not quiet")
	}
}
