package request

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"os"
	"path/filepath"
)

// maxForm bounds the files of one form.
const maxForm = 256 << 20

// Form makes a multipart body of files, all under one field name.
func Form(field string, files []string) (body []byte, contentType string, err error) {
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

		if buf.Len() > maxForm {
			return nil, "", fmt.Errorf("build the form: more than %d MiB", maxForm>>20)
		}
	}

	if err := w.Close(); err != nil {
		return nil, "", fmt.Errorf("build the form: %w", err)
	}

	return buf.Bytes(), w.FormDataContentType(), nil
}
