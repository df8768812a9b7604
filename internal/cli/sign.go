package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// maxSignedFile bounds the body that a signature may cover; the platform takes 12 MiB.
const maxSignedFile = 12 << 20

// signFlags are the flags of "sluice sign".
type signFlags struct {
	method, body, accessKey, data string
	headers, extra                []string
	algorithm, region, service    string
	unsigned                      bool
	date, output                  string
}

func signCommand() *cobra.Command {
	fl := &signFlags{}
	cmd := &cobra.Command{
		Use:   "sign URL",
		Short: "Sign a request with an access key, or with the key and secret of an app",
		Long: `Sign prints the headers that make a request authentic, one on a line, as "curl -H @-" takes them.

The secret comes from $SLUICE_SECRET_KEY and never from a flag; a security token of a temporary key
from $SLUICE_SECURITY_TOKEN. Without --access-key and $SLUICE_ACCESS_KEY, the pair in bootstrap.json of
the data directory is used. The URL, the method, the body and the headers must be what is sent.`,
		Example: `  sluice sign -X POST -H 'Content-Type: application/json' --body in.json "$URL" |
    curl -H @- -H 'Content-Type: application/json' --data-binary @in.json "$URL"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return fl.run(cmd, args[0]) },
	}

	f := cmd.Flags()
	f.StringVarP(&fl.method, "request", "X", "", "method (default: GET, with --body POST)")
	f.StringVar(&fl.body, "body", "", `file with the body, "-" for standard input`)
	f.StringArrayVarP(&fl.headers, "header", "H", nil, `header that the request will carry, "Name: value"; platform headers and Content-Type are signed`)
	f.StringArrayVar(&fl.extra, "sign-header", nil, "name of a further header to sign")
	f.StringVar(&fl.accessKey, "access-key", os.Getenv("SLUICE_ACCESS_KEY"), "access key, or key of an app")
	f.StringVar(&fl.data, "data", env("SLUICE_DATA", "data"), "data directory of a local sluice, for its first access key")
	f.StringVar(&fl.algorithm, "algorithm", "sha256", "sha256, sm3 or v11")
	f.StringVar(&fl.region, "region", "", "region of a v11 key")
	f.StringVar(&fl.service, "service", "modelarts", "service of a v11 key")
	f.BoolVar(&fl.unsigned, "unsigned-payload", false, "leave the body out of the signature")
	f.StringVar(&fl.date, "date", "", "time of signing as 20060102T150405Z (default: now)")
	f.StringVarP(&fl.output, "output", "o", "headers", "output format: headers or json")

	must(cmd.RegisterFlagCompletionFunc("algorithm", cobra.FixedCompletions([]string{"sha256", "sm3", "v11"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"headers", "json"}, cobra.ShellCompDirectiveNoFileComp)))

	return cmd
}

func (fl *signFlags) run(cmd *cobra.Command, target string) error {
	if fl.output != "headers" && fl.output != "json" {
		return fmt.Errorf("--output %s: want headers or json", fl.output)
	}

	signer, err := fl.signer()
	if err != nil {
		return err
	}

	body, err := fl.readBody(cmd.InOrStdin())
	if err != nil {
		return err
	}

	now := time.Now()
	if fl.date != "" {
		if now, err = time.Parse(sign.DateLayout, fl.date); err != nil {
			return fmt.Errorf("--date %s: want the form %s", fl.date, sign.DateLayout)
		}
	}

	req, err := fl.request(target)
	if err != nil {
		return err
	}

	given := req.Header.Clone()

	if err := signer.SignHTTP(req, body, now); err != nil {
		return fmt.Errorf("sign: %w", err)
	}

	return fl.print(cmd.OutOrStdout(), req.Header, given)
}

// print writes the headers that signing has added.
func (fl *signFlags) print(w io.Writer, headers, given http.Header) error {
	added := make(map[string]string)

	for name, values := range headers {
		if !slices.Equal(values, given[name]) {
			added[name] = values[0]
		}
	}

	if fl.output == "json" {
		if err := json.NewEncoder(w).Encode(added); err != nil {
			return fmt.Errorf("print: %w", err)
		}

		return nil
	}

	names := make([]string, 0, len(added))
	for name := range added {
		names = append(names, name)
	}

	slices.Sort(names)

	for _, name := range names {
		if _, err := fmt.Fprintf(w, "%s: %s\n", name, added[name]); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}

	return nil
}

func (fl *signFlags) request(target string) (*http.Request, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an absolute http or https URL", target)
	}

	method := fl.method
	if method == "" {
		method = http.MethodGet
		if fl.body != "" {
			method = http.MethodPost
		}
	}

	req := &http.Request{Method: method, URL: u, Host: u.Host, Header: make(http.Header)}

	for _, h := range fl.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header %q: want \"Name: value\"", h)
		}

		if strings.EqualFold(strings.TrimSpace(name), "host") {
			req.Host = strings.TrimSpace(value)

			continue
		}

		req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}

	return req, nil
}

func (fl *signFlags) signer() (sign.Signer, error) {
	s := sign.Signer{
		AccessKey: fl.accessKey, Secret: spec.NewSecret(os.Getenv("SLUICE_SECRET_KEY")),
		SecurityToken: spec.NewSecret(os.Getenv("SLUICE_SECURITY_TOKEN")),
		Region:        fl.region, Service: fl.service, UnsignedPayload: fl.unsigned, Headers: fl.extra,
	}

	switch fl.algorithm {
	case "sha256":
		s.Algorithm = sign.HMACSHA256
	case "sm3":
		s.Algorithm = sign.HMACSM3
	case "v11":
		s.Algorithm = sign.V11
	default:
		return s, fmt.Errorf("--algorithm %s: want sha256, sm3 or v11", fl.algorithm)
	}

	if s.Algorithm == sign.V11 && (s.Region == "" || s.Service == "") {
		return s, errors.New("--algorithm v11 needs --region and --service")
	}

	if s.AccessKey != "" {
		if s.Secret.Empty() {
			return s, errors.New("no secret: set $SLUICE_SECRET_KEY")
		}

		return s, nil
	}

	var boot struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}

	if err := readJSONFile(filepath.Join(fl.data, "bootstrap.json"), &boot); err != nil {
		return s, fmt.Errorf("no access key: give --access-key and $SLUICE_SECRET_KEY, or --data DIR of a local sluice (%w)", err)
	}

	s.AccessKey, s.Secret = boot.AccessKey, spec.NewSecret(boot.SecretKey)

	return s, nil
}

func (fl *signFlags) readBody(stdin io.Reader) ([]byte, error) {
	if fl.body == "" || fl.unsigned {
		return nil, nil
	}

	in := stdin

	if fl.body != "-" {
		f, err := os.Open(fl.body)
		if err != nil {
			return nil, fmt.Errorf("--body: %w", err)
		}

		defer f.Close() //nolint:errcheck // it is only read

		in = f
	}

	body, err := io.ReadAll(io.LimitReader(in, maxSignedFile+1))
	if err != nil {
		return nil, fmt.Errorf("--body: %w", err)
	}

	if len(body) > maxSignedFile {
		return nil, errors.New("--body: more than 12 MiB cannot be signed; use --unsigned-payload or a token")
	}

	return body, nil
}
