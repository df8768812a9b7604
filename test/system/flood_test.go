package system_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// flood sends one bad request after the other on some connections until ctx ends, and counts
// the answers by status.
func (s *sluice) flood(ctx context.Context, url string, bad func(i int) http.Header) (wait func() map[int]int) {
	const connections = 16

	var (
		wg     sync.WaitGroup
		n      atomic.Int64
		mu     sync.Mutex
		counts = map[int]int{}
		doer   = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	)

	for range connections {
		wg.Go(func() {
			own := map[int]int{}

			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"instances":[]}`))
				if err != nil {
					s.t.Error(err)

					return
				}

				req.Header = bad(int(n.Add(1)))

				resp, err := doer.Do(req)
				if err != nil {
					if ctx.Err() == nil {
						s.t.Errorf("flood: %v", err)
					}

					break
				}

				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()

				own[resp.StatusCode]++
			}

			mu.Lock()
			defer mu.Unlock()

			for status, n := range own {
				counts[status] += n
			}
		})
	}

	return func() map[int]int {
		wg.Wait()
		doer.CloseIdleConnections()

		return counts
	}
}

// forgeries are requests of every kind that fail to authenticate. Each token among them is
// another one, well formed and of a known key, so that its signature must be verified.
func (s *sluice) forgeries(token string) func(i int) http.Header {
	head, signature, _ := strings.Cut(token[strings.Index(token, ".")+1:], ".")
	head = token[:strings.Index(token, ".")+1] + head

	return func(i int) http.Header {
		switch i % 4 {
		case 0, 1:
			return http.Header{"X-Auth-Token": {head + "." + signature[:40] + fmt.Sprintf("%08d", i) + signature[48:]}}
		case 2:
			return http.Header{
				"X-Sdk-Date": {time.Now().UTC().Format(sign.DateLayout)},
				"Authorization": {fmt.Sprintf("SDK-HMAC-SHA256 Access=%s%d, SignedHeaders=host;x-sdk-date, Signature=%064d",
					s.Boot.AccessKey, i, i)},
			}
		default:
			return http.Header{}
		}
	}
}

// TestFloodsHurtOnlyTheirAuthors floods the edge with bad credentials from the very address of
// callers with good ones, who must all be served, with tokens and signatures that the gateway
// has never seen before.
func TestFloodsHurtOnlyTheirAuthors(t *testing.T) {
	t.Parallel()

	s := start(t, "", "admission: {failed_auth: {requests_per_second: 20, burst: 50}}\n"+
		"deploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")
	s.login()

	list := s.call("GET", s.api("/services?service_name=digits"), nil).json(t)
	service, _ := list["services"].([]any)[0].(map[string]any)["service_id"].(string)
	url := s.Edge + "/v1/infers/" + service
	body, ct := multipartOf(t, "images", sample(t, 7))

	tokens := make([]string, 20)
	for i := range tokens {
		tokens[i] = strings.TrimSpace(s.cli(nil, "token", "create"))
	}

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()

	wait := s.flood(ctx, url, s.forgeries(tokens[0]))

	s.eventually(20*time.Second, "the flood to be told to stop", func() bool {
		return s.call("POST", url, []byte("{}"), "X-Auth-Token", "").Status == 429
	})

	took := make([]time.Duration, 0, 2*len(tokens))

	for i, token := range tokens {
		at := time.Now()

		if a := s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token); a.Status != 200 {
			t.Errorf("token %d: %d %s", i, a.Status, a.Body)
		}

		took = append(took, time.Since(at))
		at = time.Now()

		if a := s.signed(url, s.Boot.AccessKey, s.Boot.SecretKey, body, ct); a.Status != 200 {
			t.Errorf("signature %d: %d %s", i, a.Status, a.Body)
		}

		took = append(took, time.Since(at))
	}

	stop()

	counts := wait()
	slices.Sort(took)
	t.Logf("the flood got %v; the others took %v at the median, %v at most", counts, took[len(took)/2], took[len(took)-1])

	if counts[429] == 0 || counts[401] == 0 || len(counts) != 2 {
		t.Errorf("the flood got %v, want 401 and then 429", counts)
	}

	if took[len(took)/2] > time.Second {
		t.Errorf("good callers beside the flood waited %v", took[len(took)/2])
	}
}

// TestEveryAlgorithmSigns sends signatures of each algorithm, with and without the body, by the
// Go signer and by the command, to both doors and to the management API.
func TestEveryAlgorithmSigns(t *testing.T) {
	t.Parallel()

	s := start(t, "", "deploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")
	s.login()

	list := s.call("GET", s.api("/services?service_name=digits"), nil).json(t)
	service, _ := list["services"].([]any)[0].(map[string]any)["service_id"].(string)
	body, ct := multipartOf(t, "images", sample(t, 7))

	for name, algorithm := range map[string]sign.Algorithm{"sha256": sign.HMACSHA256, "sm3": sign.HMACSM3, "v11": sign.V11} {
		for _, base := range []string{s.Edge, s.EdgeTLS} {
			for _, unsigned := range []bool{false, true} {
				signer := sign.Signer{
					AccessKey: s.Boot.AccessKey, Secret: spec.NewSecret(s.Boot.SecretKey), Algorithm: algorithm,
					Region: "region-1", Service: "modelarts", UnsignedPayload: unsigned,
				}
				url := base + "/v1/infers/" + service + "?b=2&a=%20x&a=1"

				if a := s.signedBy(signer, url, body, body, ct); a.Status != 200 || !bytes.Contains(a.Body, []byte(`"7"`)) {
					t.Errorf("%s, unsigned %v, %s: %d %s", name, unsigned, base, a.Status, a.Body)
				}

				other := bytes.Replace(body, []byte("0.png"), []byte("1.png"), 1)
				want := 401

				if unsigned {
					want = 200
				}

				if a := s.signedBy(signer, url, body, other, ct); a.Status != want {
					t.Errorf("%s, unsigned %v, another body: %d %s, want %d", name, unsigned, a.Status, a.Body, want)
				}

				signer.Secret = spec.NewSecret(s.Boot.SecretKey + "x")
				// Not on the same path of failures in a row: those lock the key.
				if a := s.signedBy(signer, url, body, body, ct); a.Status != 401 {
					t.Errorf("%s, wrong secret: %d %s", name, a.Status, a.Body)
				}
			}
		}

		signer := sign.Signer{
			AccessKey: s.Boot.AccessKey, Secret: spec.NewSecret(s.Boot.SecretKey), Algorithm: algorithm, Region: "r", Service: "modelarts",
		}
		if a := s.signedBy(signer, s.Edge+"/v1/infers/"+service, body, body, ct); a.Status != 200 {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}

		if a := s.signedBy(signer, s.api("/services?limit=1&offset=0"), nil, nil, "application/json"); a.Status != 200 {
			t.Errorf("%s at the management API: %d %s", name, a.Status, a.Body)
		}

		s.signedByCommand(name, service, body, ct)
	}
}

// signedBy signs one body and sends another.
func (s *sluice) signedBy(signer sign.Signer, url string, signed, sent []byte, ct string) answer {
	s.t.Helper()

	method := http.MethodPost
	if sent == nil {
		method = http.MethodGet
	}

	req, err := http.NewRequestWithContext(s.t.Context(), method, url, bytes.NewReader(sent))
	if err != nil {
		s.t.Fatal(err)
	}

	req.Header.Set("Content-Type", ct)

	if err := signer.SignHTTP(req, signed, time.Now()); err != nil {
		s.t.Fatal(err)
	}

	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}

	return answer{Status: resp.StatusCode, Header: resp.Header, Body: data}
}

// signedByCommand takes the headers that `sluice sign` prints.
func (s *sluice) signedByCommand(algorithm, service string, body []byte, ct string) {
	s.t.Helper()

	url := s.Edge + "/v1/infers/" + service

	out := s.cliJSON([]string{"SLUICE_SECRET_KEY=" + s.Boot.SecretKey}, "sign", "-X", "POST", "-H", "Content-Type: "+ct,
		"--access-key", s.Boot.AccessKey, "--algorithm", algorithm, "--region", "r", "--service", "modelarts", "--unsigned-payload", url)

	headers := []string{"Content-Type", ct, "X-Auth-Token", ""}

	for name, value := range out {
		text, _ := value.(string)
		headers = append(headers, name, text)
	}

	if a := s.call("POST", url, body, headers...); a.Status != 200 {
		s.t.Errorf("sluice sign --algorithm %s: %d %s", algorithm, a.Status, a.Body)
	}
}
