package system_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestModelFromAnArchive publishes the digits from a web server, as a release would be.
func TestModelFromAnArchive(t *testing.T) {
	t.Parallel()

	var buf bytes.Buffer

	z := gzip.NewWriter(&buf)

	if _, err := z.Write(packed(t, digitsDir(t), nil)); err != nil {
		t.Fatal(err)
	}

	if err := z.Close(); err != nil {
		t.Fatal(err)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(buf.Bytes()))
	}))
	t.Cleanup(server.Close)

	sum := sha256.Sum256(buf.Bytes())
	url := server.URL + "/digits.tar.gz#sha256=" + hex.EncodeToString(sum[:])

	s := start(t, "", "models:\n  allow_private: true\n")
	s.login()

	model, status := s.model("digits-web", "1.0.0", url)
	if status != "published" {
		t.Fatalf("model is %s: %s", status, s.call("GET", s.api("/models/"+model), nil).Body)
	}

	service := s.deploy("digits-web", model, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	if label, err := s.predictDigit(s.Edge, service, 7); err != nil || label != "7" {
		t.Errorf("%q, %v", label, err)
	}

	model, status = s.model("digits-wrong", "1.0.0", server.URL+"/digits.tar.gz#sha256="+strings.Repeat("0", 64))
	if body := s.call("GET", s.api("/models/"+model), nil).Body; status != "failed" || !bytes.Contains(body, []byte("SHA-256")) {
		t.Errorf("model is %s: %s", status, body)
	}
}

// packed is an archive of a directory and more files.
func packed(t *testing.T, dir string, more map[string][]byte) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}

	for name, data := range more {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))})
		if err == nil {
			_, err = w.Write(data)
		}

		if err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return buf.Bytes()
}
