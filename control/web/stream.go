package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// streamWrite bounds one write of a stream: a reader that is slower than that is gone.
const streamWrite = 30 * time.Second

// Stream is an answer that is sent piece by piece, as text unless ContentType says otherwise.
type Stream struct {
	ContentType string
	// Run gives the pieces to write until the end, or until ctx ends. An error before the first
	// piece is answered as any other; a later one breaks the connection off.
	Run func(ctx context.Context, write func([]byte) error) error
}

func (rt *Router) stream(w http.ResponseWriter, r *Request, s *Stream) int {
	control := http.NewResponseController(w)
	begun := false

	begin := func() {
		if begun {
			return
		}

		begun = true

		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")

		if s.ContentType != "" {
			h.Set("Content-Type", s.ContentType)
		}

		w.WriteHeader(http.StatusOK)
	}

	write := func(p []byte) error {
		begin()
		// The server's own bound is for whole answers. A writer without deadlines has no such bound.
		if err := control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err //nolint:wrapcheck // the client is gone
		}

		if _, err := w.Write(p); err != nil {
			return err //nolint:wrapcheck // the client is gone
		}

		if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err //nolint:wrapcheck // the client is gone
		}

		return nil
	}

	err := s.Run(r.Context(), write)
	if err != nil && !begun {
		return rt.fail(w, r, ModelArts, err)
	}

	if err != nil && r.Context().Err() == nil {
		rt.log.Debug("a stream broke off", slog.String("request_id", r.ID), slog.Any("error", err))
		panic(http.ErrAbortHandler)
	}

	begin()

	return http.StatusOK
}
