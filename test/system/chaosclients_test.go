package system_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// question is a V2 request with numbers that no other one has.
func question(id, n uint64) ([4]float32, []byte, error) {
	sent := [4]float32{float32(id), float32(n % 1_000_000), float32(n / 1_000_000), float32((id*7919 + n*104_729) % 99_991)}

	body, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{
		"name": "x", "shape": []int{1, 4}, "datatype": "FP32", "data": sent,
	}}})

	return sent, body, err
}

// checkEcho wants the numbers of the question back.
func checkEcho(raw []byte, sent [4]float32) error {
	var got struct {
		Outputs []struct {
			Data []float32 `json:"data"`
		} `json:"outputs"`
	}

	if err := json.Unmarshal(raw, &got); err != nil || len(got.Outputs) != 1 || len(got.Outputs[0].Data) != 4 {
		return fmt.Errorf("no answer: %.300s", raw)
	}

	if [4]float32(got.Outputs[0].Data) != sent {
		return fmt.Errorf("wrong answer: sent %v, got %v", sent, got.Outputs[0].Data)
	}

	return nil
}

// report counts one request.
func (c *chaos) report(err error) {
	if err != nil {
		c.first.CompareAndSwap(nil, time.Now().Format(time.StampMilli)+" "+err.Error())
		c.failed.Add(1)
	}

	c.sent.Add(1)
}

// socketClient asks over WebSockets. One that is told 1001 goes elsewhere with what was not answered;
// any other end is a failure, unless an engine was killed.
func (c *chaos) socketClient(id uint64) {
	var conn *websocket.Conn

	defer func() {
		if conn != nil {
			conn.Close(websocket.StatusNormalClosure, "")
		}
	}()

	for n := uint64(0); !c.done.Load(); {
		if conn == nil {
			next, err := c.dial()
			if err != nil {
				c.report(fmt.Errorf("open a WebSocket: %w", err))

				continue
			}

			conn = next
		}

		err := c.exchange(conn, id, n)

		switch {
		case err == nil:
			c.report(nil)
			c.messages.Add(1)

			n++
		case websocket.CloseStatus(err) == websocket.StatusGoingAway || c.killing.Load() && !strings.Contains(err.Error(), "answer"):
			conn.CloseNow()

			conn = nil
		default:
			c.report(fmt.Errorf("WebSocket: %w", err))
			conn.CloseNow()

			conn = nil
		}
	}
}

func (c *chaos) dial() (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	conn, resp, err := websocket.Dial(ctx, "http://"+c.plain.ln.Addr().String()+"/v1/infers/"+c.service+"/v2/models/echo/infer",
		&websocket.DialOptions{HTTPHeader: http.Header{"X-Auth-Token": {c.token}}})
	if err != nil && resp != nil {
		return nil, fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}

	return conn, err
}

func (c *chaos) exchange(conn *websocket.Conn, id, n uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	sent, body, err := question(id, n)
	if err != nil {
		return err
	}

	if err := conn.Write(ctx, websocket.MessageText, body); err != nil {
		// The reason is in what came before.
		if _, _, rerr := conn.Read(ctx); rerr != nil {
			return rerr
		}

		return err
	}

	_, raw, err := conn.Read(ctx)
	if err != nil {
		return err
	}

	return checkEcho(raw, sent)
}

// eventsOf is how many events an answer has.
const eventsOf = 5

// teller is an engine that repeats its question in events, one at a time.
func teller() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")

		flusher, ok := w.(http.Flusher)
		if !ok {
			panic("BUG: no flusher")
		}

		for i := range eventsOf {
			fmt.Fprintf(w, "data: %s %d\n\n", r.URL.Query().Get("q"), i)
			flusher.Flush()

			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}))
}

// streamClient reads streams of events to their ends.
func (c *chaos) streamClient(id uint64) {
	tr := &http.Transport{MaxIdleConnsPerHost: 1}
	defer tr.CloseIdleConnections()

	cl := &http.Client{Timeout: 30 * time.Second, Transport: tr}

	for n := uint64(0); !c.done.Load(); n++ {
		if err := c.listen(cl, fmt.Sprintf("%d-%d", id, n)); err != nil {
			c.report(fmt.Errorf("stream: %w", err))
		} else {
			c.report(nil)
			c.streams.Add(1)
		}
	}
}

func (c *chaos) listen(cl *http.Client, q string) error {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet,
		"http://"+c.plain.ln.Addr().String()+"/v1/infers/"+c.telling+"/events?q="+q, nil)
	if err != nil {
		return err
	}

	req.Header.Set("X-Auth-Token", c.token)

	resp, err := cl.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}

	got := 0

	for sc := bufio.NewScanner(resp.Body); ; {
		if !sc.Scan() {
			if sc.Err() == nil && got == eventsOf {
				return nil
			}

			return errors.Join(fmt.Errorf("%d of %d events", got, eventsOf), sc.Err())
		}

		if line := sc.Text(); line != "" {
			if line != fmt.Sprintf("data: %s %d", q, got) {
				return fmt.Errorf("wrong answer: %q as event %d of %s", line, got, q)
			}

			got++
		}
	}
}
