// Command token predicts with a token: it gets one by password, then sends it.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	if err := run(context.Background(), os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, env func(string) string, out io.Writer) error {
	client, err := newClient(env("SLUICE_CA"))
	if err != nil {
		return err
	}

	token, err := getToken(ctx, client, env)
	if err != nil {
		return err
	}

	input, err := os.ReadFile(env("SLUICE_INPUT"))
	if err != nil {
		return fmt.Errorf("read input: %w", err)
	}

	url := env("SLUICE_EDGE") + "/v1/infers/" + env("SLUICE_SERVICE") + env("SLUICE_PATH")
	res, err := post(ctx, client, url, input, map[string]string{"X-Auth-Token": token, "Content-Type": contentType(env)})
	if err != nil {
		return err
	}

	defer res.Body.Close() //nolint:errcheck // it is only read

	_, err = io.Copy(out, res.Body)

	return err
}

func getToken(ctx context.Context, client *http.Client, env func(string) string) (string, error) {
	type object = map[string]any

	request, err := json.Marshal(object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": object{
			"name": env("SLUICE_USER"), "password": env("SLUICE_PASSWORD"), "domain": object{"name": env("SLUICE_DOMAIN")},
		}}},
		"scope": object{"project": object{"id": env("SLUICE_PROJECT")}},
	}})
	if err != nil {
		return "", fmt.Errorf("encode: %w", err)
	}

	res, err := post(ctx, client, env("SLUICE_CONTROL")+"/v3/auth/tokens", request, map[string]string{"Content-Type": "application/json"})
	if err != nil {
		return "", err
	}

	defer res.Body.Close() //nolint:errcheck // the token is in a header

	return res.Header.Get("X-Subject-Token"), nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte, headers map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}

	for name, value := range headers {
		req.Header.Set(name, value)
	}

	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}

	if res.StatusCode >= http.StatusMultipleChoices {
		defer res.Body.Close() //nolint:errcheck // it is only read

		text, err := io.ReadAll(io.LimitReader(res.Body, 4096))

		return nil, errors.Join(fmt.Errorf("%s: %s", res.Status, text), err)
	}

	return res, nil
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
