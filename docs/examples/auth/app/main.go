// Command app predicts as an app, in each of the three ways. The last two need HTTPS.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

func main() {
	if err := run(context.Background(), os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, env func(string) string, out io.Writer) error {
	signer := sign.Signer{AccessKey: env("SLUICE_APP_KEY"), Secret: spec.NewSecret(env("SLUICE_APP_SECRET"))}

	ways := []func(*http.Request, []byte) error{
		func(req *http.Request, body []byte) error { return signer.SignHTTP(req, body, time.Now()) },
		func(req *http.Request, _ []byte) error { return set(req, "X-Apig-AppCode", env("SLUICE_APP_CODE")) },
		func(req *http.Request, _ []byte) error { return set(req, "apikey", env("SLUICE_APP_KEY")) },
	}

	for _, way := range ways {
		if err := predict(ctx, env, out, way); err != nil {
			return err
		}
	}

	return nil
}

func set(req *http.Request, name, value string) error {
	req.Header.Set(name, value)

	return nil
}

// predict sends the input once; authenticate adds what proves who calls.
func predict(ctx context.Context, env func(string) string, out io.Writer, authenticate func(*http.Request, []byte) error) error {
	client, err := newClient(env("SLUICE_CA"))
	if err != nil {
		return err
	}

	input, err := os.ReadFile(env("SLUICE_INPUT"))
	if err != nil {
		return fmt.Errorf("read input: %w", err)
	}

	url := env("SLUICE_EDGE") + "/v1/infers/" + env("SLUICE_SERVICE") + env("SLUICE_PATH")

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(input))
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}

	req.Header.Set("Content-Type", contentType(env))

	if err := authenticate(req, input); err != nil {
		return err
	}

	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}

	defer res.Body.Close() //nolint:errcheck // it is only read

	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}

	if res.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s: %s", res.Status, answer)
	}

	_, err = fmt.Fprintf(out, "%s\n", answer)

	return err
}

func contentType(env func(string) string) string {
	if t := env("SLUICE_CONTENT_TYPE"); t != "" {
		return t
	}

	return "application/json"
}

// newClient trusts the certificates in caFile beside those of the system.
func newClient(caFile string) (*http.Client, error) {
	if caFile == "" {
		return http.DefaultClient, nil
	}

	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", caFile)
	}

	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}, nil
}
