// Package auth_test runs the examples of the documentation against a door that verifies for real.
package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/cli"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// TestMain lets the test binary stand in for the sluice command.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "sluice" {
		os.Exit(m.Run())
	}

	root := &cobra.Command{Use: "sluice"}
	root.AddCommand(cli.Commands()...)

	if root.Execute() != nil {
		os.Exit(1)
	}
}

const (
	service = "76c41384-23ab-45f9-a66e-892e7bc2be53"
	project = "0123456789abcdef0123456789abcdef"
	// tricky is a path and a query that a signer gets wrong if it gets anything wrong.
	tricky = "/a%20b/%E4%B8%AD+~x?q=1+2&q=%2B&empty&Z=*"
)

type opener struct{}

func (opener) Open(sealed []byte, _ string) ([]byte, error) { return bytes.Clone(sealed), nil }

// newSystem is an edge and a control API in one. The edge answers with the way of authenticating.
func newSystem(t *testing.T) []string {
	t.Helper()

	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public, _ := private.Public().(ed25519.PublicKey)
	code := sha256.Sum256([]byte("app-code-1"))

	d, err := auth.Compile(&spec.Snapshot{
		Projects:   []spec.Project{{ID: project, DomainID: "d1", Enabled: true}},
		Users:      []spec.User{{ID: "u1", Name: "admin", DomainID: "d1", Enabled: true, Grants: []spec.Grant{{ProjectID: project, Role: spec.RoleCaller}}}},
		AccessKeys: []spec.AccessKey{{AccessKey: "AK1", SealedSecret: []byte("SK1"), UserID: "u1", Enabled: true}},
		Apps: []spec.App{{
			ID: "app1", Key: "app-key-1", SealedSecret: []byte("app-secret-1"), Codes: []spec.AppCode{{Hash: code[:]}}, Enabled: true,
		}},
		TokenKeys: []spec.TokenKey{{ID: "k1", PublicKey: public}},
		Services:  []spec.Route{{ServiceID: service, ProjectID: project, AppIDs: []string{"app1"}, AppCodes: true}},
	}, opener{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	v, err := auth.NewVerifier(auth.Config{}, auth.Hooks{})
	if err != nil {
		t.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, r *http.Request) { issueToken(w, r, private) })
	mux.HandleFunc("POST /v1/infers/"+service+"/", func(w http.ResponseWriter, r *http.Request) {
		p, err := v.Verify(d, auth.FromHTTP(r, func() ([]byte, error) { return io.ReadAll(r.Body) }, time.Now()), auth.AllowDefault)
		if err == nil {
			err = d.Authorize(p, auth.ActionPredict, project, service)
		}

		if err != nil {
			http.Error(w, err.Error(), fault.From(err).Code.Status())

			return
		}

		_, _ = io.WriteString(w, [...]string{
			auth.MethodToken: "token", auth.MethodAKSK: "aksk", auth.MethodAppSignature: "signature",
			auth.MethodAppCode: "code", auth.MethodAppKey: "key",
		}[p.Method])
	})

	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)

	dir := t.TempDir()
	ca, input := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "input")
	write(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	write(t, input, []byte("\x00binary\xff input\n"))

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	if err := os.Symlink(self, filepath.Join(dir, "sluice")); err != nil {
		t.Fatal(err)
	}

	return append(os.Environ(),
		"PATH="+dir+":"+os.Getenv("PATH"), "SLUICE_EDGE="+server.URL, "SLUICE_CONTROL="+server.URL, "SLUICE_CA="+ca, "SLUICE_INPUT="+input,
		"SLUICE_SERVICE="+service, "SLUICE_PATH="+tricky, "SLUICE_CONTENT_TYPE=image/png",
		"SLUICE_USER=admin", "SLUICE_PASSWORD=secret word", "SLUICE_DOMAIN=acme", "SLUICE_PROJECT="+project,
		"SLUICE_ACCESS_KEY=AK1", "SLUICE_SECRET_KEY=SK1",
		"SLUICE_APP_KEY=app-key-1", "SLUICE_APP_SECRET=app-secret-1", "SLUICE_APP_CODE=app-code-1",
	)
}

func issueToken(w http.ResponseWriter, r *http.Request, key ed25519.PrivateKey) {
	var request struct {
		Auth struct {
			Identity struct {
				Password struct {
					User struct {
						Name, Password string
						Domain         struct{ Name string }
					}
				}
			}
			Scope struct{ Project struct{ ID string } }
		}
	}

	err := json.NewDecoder(r.Body).Decode(&request)
	user := request.Auth.Identity.Password.User

	if err != nil || user.Name != "admin" || user.Password != "secret word" || user.Domain.Name != "acme" {
		http.Error(w, "The username or password is wrong.", http.StatusUnauthorized)

		return
	}

	token, err := auth.IssueToken(key, "k1", auth.TokenClaims{
		ID: "t1", UserID: "u1", ProjectID: request.Auth.Scope.Project.ID, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)

		return
	}

	w.Header().Set("X-Subject-Token", token)
	w.WriteHeader(http.StatusCreated)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()

	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestExamples(t *testing.T) {
	t.Parallel()

	env := newSystem(t)

	for example, want := range map[string]string{"token": "token", "aksk": "aksk", "app": "signature code key"} {
		for language, command := range map[string][]string{
			"curl":   {"sh", "./" + example + "/" + example + ".sh"},
			"python": {"python3", "./" + example + "/" + example + ".py"},
			"go":     {"go", "run", "./" + example},
		} {
			t.Run(example+" in "+language, func(t *testing.T) {
				t.Parallel()

				for _, tool := range []string{command[0], map[string]string{"curl": "curl"}[language]} {
					if _, err := exec.LookPath(tool); tool != "" && err != nil {
						t.Skipf("%s is not installed", tool)
					}
				}

				cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
				cmd.Env = env

				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr

				if err := cmd.Run(); err != nil {
					t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
				}

				got := stdout.String()
				for way := range strings.FieldsSeq(want) {
					if !strings.Contains(got, way) {
						t.Errorf("got %q, want %s", got, want)
					}

					got = strings.Replace(got, way, "", 1)
				}
			})
		}
	}
}

// TestExamplesFailWithAWrongSecret makes sure that the door of this test does not wave everything through.
func TestExamplesFailWithAWrongSecret(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}

	env := newSystem(t)
	cmd := exec.CommandContext(t.Context(), "python3", "./aksk/aksk.py")
	cmd.Env = slices.Concat(env, []string{"SLUICE_SECRET_KEY=guess"})

	if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("401")) {
		t.Errorf("got %v\n%s", err, out)
	}
}
