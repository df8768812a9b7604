package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

type predictFlags struct {
	files   []string
	field   string
	data    string
	path    string
	method  string
	explain bool
}

func servicePredict(b *base) *cobra.Command {
	var f predictFlags

	cmd := b.serviceVerb("predict NAME|ID", "Send a prediction through the edge", func(cmd *cobra.Command, id string) error {
		return b.predict(cmd, id, &f)
	})
	cmd.Example = `  sluice service predict digits --file 7.png
  sluice service predict digits --json '{"inputs":[…]}' --path /v2/models/digits/infer
  sluice service predict digits --json @request.json`

	fl := cmd.Flags()
	fl.StringArrayVarP(&f.files, "file", "f", nil, "file to send as multipart/form-data; may be given several times")
	fl.StringVar(&f.field, "field", "images", "name of the form field for files")
	fl.StringVar(&f.data, "json", "", "JSON to send; @FILE reads a file, @- standard input")
	fl.StringVar(&f.path, "path", "", "path below the service")
	fl.StringVar(&f.method, "method", http.MethodPost, "HTTP method")
	fl.BoolVar(&f.explain, "explain", false, "tell how the request was routed and batched")
	cmd.MarkFlagsMutuallyExclusive("file", "json")

	return cmd
}

func (b *base) predict(cmd *cobra.Command, id string, f *predictFlags) error {
	if b.conn.edge == "" {
		return errors.New("no edge address: give --edge URL")
	}

	body, contentType, err := predictBody(cmd.InOrStdin(), f)
	if err != nil {
		return err
	}

	r := request{method: f.method, url: b.conn.edge + "/v1/infers/" + id + slashed(f.path), body: body, contentType: contentType}
	if f.explain {
		r.header = map[string]string{"X-Sluice-Explain": "1"}
	}

	resp, err := b.conn.send(cmd.Context(), r)
	if err != nil {
		return err
	}

	if f.explain {
		for _, h := range []string{"X-Sluice-Model", "X-Sluice-Instance", "X-Sluice-Rule", "X-Sluice-Batch", "X-Request-Id"} {
			if v := resp.header.Get(h); v != "" {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", h, v)
			}
		}
	}

	return b.showAnswer(cmd.OutOrStdout(), resp)
}

func (b *base) showAnswer(w io.Writer, resp *response) error {
	var v any
	if b.output == "yaml" && json.Unmarshal(resp.body, &v) == nil {
		return b.whole(w, v)
	}

	body := resp.body
	if !bytes.HasSuffix(body, []byte("\n")) {
		body = append(body, '\n')
	}

	_, err := w.Write(body)

	return err //nolint:wrapcheck // the output is broken, there is nothing to add
}

func slashed(path string) string {
	if path == "" || strings.HasPrefix(path, "/") {
		return path
	}

	return "/" + path
}

func predictBody(stdin io.Reader, f *predictFlags) (body []byte, contentType string, err error) {
	switch {
	case len(f.files) > 0:
		return formBody(f.field, f.files)
	case f.data == "@-":
		body, err = io.ReadAll(io.LimitReader(stdin, maxAnswerBytes))
	case strings.HasPrefix(f.data, "@"):
		body, err = os.ReadFile(f.data[1:])
	case f.data != "":
		body = []byte(f.data)
	case f.method == http.MethodGet:
		return nil, "", nil
	default:
		return nil, "", errors.New("nothing to send: give --file or --json")
	}

	if err != nil {
		return nil, "", fmt.Errorf("read the request body: %w", err)
	}

	return body, jsonType, nil
}

func formBody(field string, files []string) (body []byte, contentType string, err error) {
	var buf bytes.Buffer

	w := multipart.NewWriter(&buf)

	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, "", fmt.Errorf("read the file to send: %w", err)
		}

		part, err := w.CreateFormFile(field, filepath.Base(name))
		if err == nil {
			_, err = part.Write(data)
		}

		if err != nil {
			return nil, "", fmt.Errorf("build the form: %w", err)
		}
	}

	if err := w.Close(); err != nil {
		return nil, "", fmt.Errorf("build the form: %w", err)
	}

	return buf.Bytes(), w.FormDataContentType(), nil
}
