package web_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
)

func TestStreams(t *testing.T) {
	t.Parallel()

	seen := make(chan struct{})
	route := func(path string, run func(ctx context.Context, write func([]byte) error) error) web.Route {
		return web.Route{
			Name: path, Method: http.MethodGet, Pattern: path, Public: true,
			Handle: func(*web.Request) (any, error) { return web.Stream{Run: run}, nil },
		}
	}

	rt, err := web.New(web.Config{}, nil, slog.New(slog.DiscardHandler),
		route("/whole", func(_ context.Context, write func([]byte) error) error {
			if err := write([]byte("one ")); err != nil {
				return err
			}

			<-seen // the first piece is with the client before the second is written

			return write([]byte("two"))
		}),
		route("/empty", func(context.Context, func([]byte) error) error { return nil }),
		route("/refused", func(context.Context, func([]byte) error) error { return fault.New(fault.ObjectNotFound, "no such log") }),
		route("/broken", func(_ context.Context, write func([]byte) error) error {
			return errors.Join(write([]byte("half")), errors.New("the disk is gone"))
		}),
	)
	if err != nil {
		t.Fatal(err)
	}

	srv := httptest.NewServer(rt)
	t.Cleanup(srv.Close)

	get := func(path string) *http.Response {
		t.Helper()

		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = resp.Body.Close() })

		return resp
	}

	resp := get("/whole")

	first := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "one " {
		t.Fatalf("%q %v", first, err)
	}

	close(seen)

	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two" {
		t.Errorf("%q %v", rest, err)
	}

	if body, err := io.ReadAll(get("/empty").Body); err != nil || len(body) != 0 {
		t.Errorf("%q %v", body, err)
	}

	if resp := get("/refused"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", resp.StatusCode)
	}

	if body, err := io.ReadAll(get("/broken").Body); err == nil {
		t.Errorf("a broken stream looks whole: %q", body)
	}
}
