package codec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
)

func scanner(text string) *codec.Scanner {
	var s codec.Scanner

	s.Reset([]byte(text))

	return &s
}

// valid reads text with Skip.
func valid(text string) error {
	s := scanner(text)
	if err := s.Skip(); err != nil {
		return err
	}

	return s.End()
}

func TestSkipAcceptsWhatJSONIs(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		`0`, `-0`, `1.5e-7`, `"a"`, `true`, `null`, `{}`, `[]`, ` { "a" : [ 1 , { } , "x\n\u00e9\ud83d\ude00" ] , "b" : false } `,
		`[[],[[]],{"":""}]`, strings.Repeat("[", 100) + strings.Repeat("]", 100),
	} {
		if err := valid(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}

	for _, text := range []string{
		``, ` `, `01`, `1.`, `.5`, `+1`, `1e`, `-`, `"`, `"\x"`, `"\u12"`, "\"\x01\"", "\"\xff\"", `tru`, `{`, `{"a"}`, `{"a":}`,
		`{"a":1,}`, `[1,]`, `[,1]`, `[1 2]`, `{a:1}`, `1 2`, `]`, `nul`, `{"a":1]`, `[1}`,
		strings.Repeat("[", 101) + strings.Repeat("]", 101), strings.Repeat(`{"a":`, 1_000_000),
	} {
		if err := valid(text); !errors.Is(err, &fault.Error{Code: fault.BadJSON}) {
			t.Errorf("%.40s: %v, want a JSON fault", text, err)
		}
	}
}

func TestStringUnescapes(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		`"plain é"`:            "plain é",
		`"\"\\\/\b\f\n\r\t"`:   "\"\\/\b\f\n\r\t",
		`"\u0041\ud83d\ude00"`: "A😀",
		`"\ud83dx\udc00"`:      "\ufffdx\ufffd",
		`"\ud83d\u0041"`:       "\ufffdA",
	} {
		s := scanner(text)

		got, err := s.String()
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

func FuzzSkip(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e3,"x\u0041",{"b":null}]}`, `[[[]],true]`, `"\ud800"`, `{"":0}`, `-0.0e+1`} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, text string) {
		got := valid(text) == nil
		// The two differ where this scanner is stricter: nesting and UTF-8.
		want := json.Valid([]byte(text))

		if got && !want {
			t.Fatalf("accepted %q", text)
		}

		if want && !got && strings.ToValidUTF8(text, "") == text && strings.Count(text, "[")+strings.Count(text, "{") <= codec.MaxDepth {
			t.Fatalf("refused %q: %v", text, valid(text))
		}
	})
}

func TestDims(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		`7`: `null`, `"x"`: `null`, `[]`: `[0]`, `[1,2,3]`: `[3]`, `[[1,2],[3,4],[5,6]]`: `[3,2]`, `[[[1]],[[2]]]`: `[2,1,1]`, `[[],[]]`: `[2,0]`,
		`[[1],2]`: `error`, `[1,[2]]`: `error`, `[[1,2],[3]]`: `error`, `{"a":1}`: `error`, `[{}]`: `error`, `[[1],[]]`: `error`, `[[],[1]]`: `error`,
	} {
		dims, err := scanner(text).Dims()
		got, _ := json.Marshal(dims)

		if err != nil {
			got = []byte("error")
		}

		if string(got) != want {
			t.Errorf("%s: %s (%v), want %s", text, got, err, want)
		}
	}
}
