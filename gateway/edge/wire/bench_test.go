package wire_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

// typical is the head of a prediction signed with AK/SK, as an SDK sends it: 15 fields.
var typical = []byte(request("POST /v1/infers/3b6a2d6e-4c1e-4c55-9d1e-0f6a3f6f2f10/v1/predict?x-trace=1 HTTP/1.1",
	"Host: infer-modelarts.cn-north-4.example.com",
	"User-Agent: huaweicloud-usdk-go/3.0",
	"Accept: application/json",
	"Accept-Encoding: gzip, deflate, br",
	"Accept-Language: en-US,en;q=0.9",
	"Cache-Control: no-cache",
	"Connection: keep-alive",
	"Content-Type: application/json;charset=utf-8",
	"Content-Length: 1024",
	"X-Project-Id: 0a1b2c3d4e5f60718293a4b5c6d7e8f9",
	"X-Sdk-Date: 20260102T030405Z",
	"X-Request-Id: 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
	"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	"X-Forwarded-For: 203.0.113.7, 10.0.0.1",
	"Authorization: SDK-HMAC-SHA256 Access=AKTESTINFERGATEWAY01, SignedHeaders=content-type;host;x-project-id;x-sdk-date, "+
		"Signature=5cc1aa63d9cbe0dee6c6f0a3ab0d0b8b1a2c3d4e5f60718293a4b5c6d7e8f901",
))

var generous = &wire.Limits{Line: 32 << 10, Field: 32 << 10, Head: 128 << 10, Fields: 100}

// BenchmarkGuard is the whole judgement of a typical head: finding its end and parsing it. The
// promise is 1 µs and no allocation.
func BenchmarkGuard(b *testing.B) {
	var h wire.Head

	b.SetBytes(int64(len(typical)))
	b.ReportAllocs()

	for b.Loop() {
		end := wire.End(typical, 0)
		if err := h.Parse(typical[:end], "https", generous); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuardMinimal(b *testing.B) {
	var h wire.Head

	raw := []byte(request(get, host))

	b.ReportAllocs()

	for b.Loop() {
		if err := h.Parse(raw, "http", generous); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunked(b *testing.B) {
	raw := []byte("400\r\n" + string(make([]byte, 1024)) + "\r\n0\r\n\r\n")
	dst := make([]byte, 4096)

	b.SetBytes(1024)
	b.ReportAllocs()

	for b.Loop() {
		var c wire.ChunkReader
		if _, n, err := c.Read(dst, raw); err != nil || n != 1024 {
			b.Fatal(n, err)
		}
	}
}
