// Command direct asks a service by the direct channel, or with -edge through the gateway: the calls are the same.
//
//	go run ./docs/examples/direct -control URL -project ID -service ID -token TOKEN -key KEY picture.png
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"mime/multipart"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/client"
)

func main() {
	var cfg client.Config

	flag.StringVar(&cfg.Control, "control", "", "base URL of the management API")
	flag.StringVar(&cfg.Edge, "edge", "", "base URL of the edge; calls go through it")
	flag.StringVar(&cfg.Project, "project", "", "project id")
	flag.StringVar(&cfg.Service, "service", "", "service id")
	flag.StringVar(&cfg.Token, "token", "", "token")
	flag.StringVar(&cfg.DirectKey, "key", "", "key of the direct channel")
	flag.Parse()

	if cfg.Edge != "" {
		cfg.Through = client.Edge
	}

	if err := run(cfg, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(cfg client.Config, picture string) error {
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()

	body, contentType, err := form(picture)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	answer, err := c.Predict(ctx, contentType, body)
	if err != nil {
		return err
	}

	fmt.Println(string(answer))

	return nil
}

// form puts a file into a multipart form.
func form(path string) (body []byte, contentType string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}

	var buf bytes.Buffer

	w := multipart.NewWriter(&buf)

	part, err := w.CreateFormFile("images", "picture.png")
	if err != nil {
		return nil, "", err
	}

	if _, err := part.Write(data); err != nil {
		return nil, "", err
	}

	err = w.Close()

	return buf.Bytes(), w.FormDataContentType(), err
}
