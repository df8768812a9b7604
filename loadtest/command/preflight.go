package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sluice-gateway/sluice/loadtest/measure"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// preflight sends each kind of request once, before any load. It returns what is worth a note.
func (f *flags) preflight(ctx context.Context, t *target) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()

	if t.socket {
		err := wire.Try(ctx, &t.endpoint)

		return nil, explain(t, err)
	}

	var notes []string

	for i, raw := range t.mix.Once(f.seed) {
		status, body, err := wire.Once(ctx, &t.endpoint, raw, t.items[i].Method == http.MethodHead)
		if err != nil {
			return nil, explain(t, err)
		}

		switch {
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return nil, fmt.Errorf("%s refuses the credentials: HTTP %d %s", t.items[i].Name, status, told(body))
		case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
			notes = append(notes, fmt.Sprintf("%s answers with HTTP %d; redirects are not followed and count as failed", t.items[i].Name, status))
		case status >= http.StatusBadRequest:
			notes = append(notes, fmt.Sprintf("%s answered the first request with HTTP %d %s", t.items[i].Name, status, told(body)))
		}
	}

	return notes, nil
}

func explain(t *target, err error) error {
	if err == nil {
		return nil
	}

	var de *wire.DialError
	if errors.As(err, &de) && de.Status != 0 {
		if de.Status == http.StatusUnauthorized || de.Status == http.StatusForbidden {
			return fmt.Errorf("%s refuses the credentials: HTTP %d %s", t.name, de.Status, told(de.Body))
		}

		return fmt.Errorf("%s is no WebSocket: HTTP %d %s", t.name, de.Status, told(de.Body))
	}

	if errors.As(err, &de) && de.Class == measure.ConnectTimeout {
		return fmt.Errorf("cannot reach %s: no connection in time", t.name)
	}

	return fmt.Errorf("cannot reach %s: %w", t.name, err)
}

// told is what an error body says, in one short line.
func told(body []byte) string {
	var b struct {
		Code  string `json:"error_code"`
		Msg   string `json:"error_msg"`
		Error any    `json:"error"`
	}

	const most = 160

	text := string(body)

	if json.Unmarshal(body, &b) == nil {
		if s, ok := b.Error.(string); ok {
			text = s
		}

		if b.Code != "" {
			text = b.Code + " " + b.Msg
		}
	}

	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}

	return text
}
