// Command wsclient sends V2 requests for the digits model over one WebSocket: wsclient URL TOKEN.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err) //nolint:forbidigo // an example: this is all its user sees
	}
}

type tensor struct {
	Name     string    `json:"name"`
	Datatype string    `json:"datatype"`
	Shape    []int     `json:"shape"`
	Data     []float32 `json:"data"`
}

type request struct {
	ID     string   `json:"id"`
	Inputs []tensor `json:"inputs"`
}

type answer struct {
	ID      string   `json:"id"`
	Status  int      `json:"status"` // of an error
	Error   string   `json:"error"`
	Outputs []tensor `json:"outputs"`
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: wsclient URL TOKEN")
	}

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	ws, _, err := websocket.Dial(ctx, args[0], &websocket.DialOptions{ //nolint:bodyclose // a 101 has none
		HTTPHeader: http.Header{"X-Auth-Token": {args[1]}}, Subprotocols: []string{"v2.inference"},
	})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer ws.CloseNow() //nolint:errcheck // closed already, or broken

	// All at once; answers come as they are ready, told apart by their ids.
	const count = 10

	for i := range count {
		inputs := []tensor{{Name: "image", Datatype: "FP32", Shape: []int{1, 1, 8, 8}, Data: make([]float32, 64)}}

		text, err := json.Marshal(request{ID: strconv.Itoa(i), Inputs: inputs})
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}

		if err := ws.Write(ctx, websocket.MessageText, text); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}

	answers := map[string]answer{}

	for range count {
		_, text, err := ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", err) // websocket.CloseStatus tells the close code
		}

		var a answer
		if err := json.Unmarshal(text, &a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}

		if a.Error != "" {
			return fmt.Errorf("answer %s: %d %s", a.ID, a.Status, a.Error)
		}

		answers[a.ID] = a
	}

	log.Println("answers", len(answers)) //nolint:forbidigo // an example: this is all its user sees

	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		return fmt.Errorf("close: %w", err)
	}

	return nil
}
