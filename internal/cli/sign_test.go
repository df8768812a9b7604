package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/cli"
)

func sluiceSign(stdin string, args ...string) (string, error) {
	root := &cobra.Command{Use: "sluice", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(cli.Commands()...)

	var out bytes.Buffer

	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(append([]string{"sign"}, args...))
	err := root.Execute()

	return out.String(), err
}

// TestSignGivesTheSignatureOfTheVector uses vector v06 of auth/sign: a binary body, host and
// content type signed.
func TestSignGivesTheSignatureOfTheVector(t *testing.T) {
	t.Setenv("SLUICE_SECRET_KEY", "SkTestInferGateway0123456789abcdefABCDEF")

	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(i)
	}

	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}

	args := []string{
		"--access-key", "AKTESTINFERGATEWAY01", "--date", "20250102T030405Z", "-H", "Content-Type: application/octet-stream",
		"-H", "X-Stage: RELEASE", "https://infer.example.huaweicloud.com/v1/infers/76c41384-23ab-45f9-a66e-892e7bc2be53",
	}
	want := "Authorization: SDK-HMAC-SHA256 Access=AKTESTINFERGATEWAY01, SignedHeaders=content-type;host;x-sdk-date;x-stage, " +
		"Signature=a8825cedbaab226c94dbd2f6e06cc1b762fec40d32977aa4af10654bacde9be7\nX-Sdk-Date: 20250102T030405Z\n"

	got, err := sluiceSign("", append(args, "--body", file)...)
	if err != nil || got != want {
		t.Errorf("from a file: %v\n%s\nwant\n%s", err, got, want)
	}

	got, err = sluiceSign(string(body), append(args, "--body", "-")...)
	if err != nil || got != want {
		t.Errorf("from standard input: %v\n%s", err, got)
	}
}

func TestSignTakesTheFirstKeyOfALocalSluice(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "bootstrap.json"), []byte(`{"access_key":"AK1","secret_key":"SK1"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	t.Setenv("SLUICE_ACCESS_KEY", "")
	t.Setenv("SLUICE_SECURITY_TOKEN", "sts")

	out, err := sluiceSign("", "--data", data, "-o", "json", "--algorithm", "v11", "--region", "r", "--unsigned-payload", "http://127.0.0.1/x")
	if err != nil {
		t.Fatal(err)
	}

	var headers map[string]string
	if err := json.Unmarshal([]byte(out), &headers); err != nil {
		t.Fatal(err)
	}

	if !strings.HasPrefix(headers["Authorization"], "V11-HMAC-SHA256 Credential=AK1/") || headers["X-Security-Token"] != "sts" ||
		headers["X-Sdk-Content-Sha256"] != "UNSIGNED-PAYLOAD" {
		t.Errorf("got %s", out)
	}

	if strings.Contains(out, "SK1") {
		t.Error("the secret is printed")
	}
}

func TestSignSaysWhatIsMissing(t *testing.T) {
	t.Setenv("SLUICE_ACCESS_KEY", "")
	t.Setenv("SLUICE_SECRET_KEY", "")

	for want, args := range map[string][]string{
		"no access key":       {"--data", t.TempDir(), "http://h/"},
		"no secret":           {"--access-key", "AK", "http://h/"},
		"--algorithm md5":     {"--algorithm", "md5", "http://h/"},
		"--region":            {"--algorithm", "v11", "http://h/"},
		"--output yaml":       {"-o", "yaml", "http://h/"},
		"accepts 1 arg":       {},
		"not an absolute":     {"--data", localData(t), "/path"},
		"--header \"broken\"": {"--data", localData(t), "-H", "broken", "http://h/"},
		"--body":              {"--data", localData(t), "--body", "/nonexistent", "http://h/"},
		"--date yesterday":    {"--data", localData(t), "--date", "yesterday", "http://h/"},
	} {
		if _, err := sluiceSign("", args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want a word of %q", args, err, want)
		}
	}
}

func localData(t *testing.T) string {
	t.Helper()

	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "bootstrap.json"), []byte(`{"access_key":"AK1","secret_key":"SK1"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	return data
}
