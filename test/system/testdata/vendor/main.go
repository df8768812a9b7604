// Command vendor signs with the platform's own SDK for Go and prints the status of each answer.
//
//	vendor EDGE SERVICE ACCESS_KEY SECRET_KEY
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/signer"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/signer/algorithm"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/request"
)

type signs func(r *request.DefaultHttpRequest, ak, sk string) (map[string]string, error)

func main() {
	edge, service, ak, sk := os.Args[1], os.Args[2], os.Args[3], os.Args[4]

	sm3, err := signer.GetSigner(algorithm.HmacSM3)
	if err != nil {
		panic(err)
	}

	for name, sign := range map[string]signs{
		"sha256": signer.Sign,
		"sm3":    sm3.Sign,
		"v11": func(r *request.DefaultHttpRequest, ak, sk string) (map[string]string, error) {
			return signer.SignDerived(r, ak, sk, "modelarts", "region-1")
		},
	} {
		for _, c := range []struct{ method, path, contentType, body string }{
			{"GET", "/v2/models/digits", "", ""},
			{"POST", "/v2/models/digits/infer", "application/json", `{"inputs":[]}`},
			{"POST", "/v2/models/digits/infer", "application/octet-stream", "bytes"},
		} {
			for _, secret := range []string{sk, sk + "x"} {
				b := request.NewHttpRequestBuilder().WithEndpoint(edge).WithMethod(c.method).
					WithPath("/v1/infers/"+service+c.path).
					AddQueryParam("b", "a b/ü+~*").AddQueryParam("a", []string{"2", "1"}).
					AddHeaderParam("X-Project-Id", " p ").AddHeaderParam("User-Agent", "vendor/1")
				if c.body != "" {
					b = b.AddHeaderParam("Content-Type", c.contentType).WithBody("body", c.body)
				}

				fmt.Println(name, c.method, c.contentType, secret == sk, try(b.Build(), sign, ak, secret))
			}
		}
	}
}

func try(r *request.DefaultHttpRequest, sign signs, ak, sk string) string {
	headers, err := sign(r, ak, sk)
	if err != nil {
		return err.Error()
	}

	for name, value := range headers {
		r.AddHeaderParam(name, value)
	}

	req, err := r.ConvertRequest()
	if err != nil {
		return err.Error()
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()

	text, _ := io.ReadAll(resp.Body)

	return fmt.Sprint(resp.StatusCode, " ", string(text))
}
