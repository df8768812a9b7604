package apischema_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/apischema"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func api(tb testing.TB, contentType, schema string) *spec.API {
	tb.Helper()

	var data any
	if err := json.Unmarshal([]byte(schema), &data); err != nil {
		tb.Fatal(err)
	}

	return &spec.API{URL: "/", Method: "post", Request: &spec.APIMessage{ContentType: contentType, Data: data}}
}

const greeting = `{"type":"object","required":["name"],"additionalProperties":false,"properties":{
	"name":{"type":"string","minLength":1,"maxLength":5},"tags":{"type":"array","items":{"type":"string"},"uniqueItems":true},
	"n":{"type":"integer","minimum":0},"kind":{"enum":["a","b"]},"more":{"$ref":"#"}}}`

func TestBodiesAreChecked(t *testing.T) {
	t.Parallel()

	s, err := apischema.Of(api(t, "application/json; charset=utf-8", greeting))
	if err != nil || s == nil {
		t.Fatalf("%v %v", s, err)
	}

	for body, want := range map[string]struct {
		code fault.Code
		text string
	}{
		`{"name":"you"}`: {},
		` {"name":"you","tags":["a","b"],"n":3,"kind":"b","more":{"name":"x"}} `: {},
		`{"name":"you","n":12345678901234567890123}`:                             {},
		``:                                {fault.EmptyBody, "Empty"},
		"  \n":                            {fault.EmptyBody, "Empty"},
		`{"name":`:                        {fault.BadJSON, "not JSON"},
		`{"name":"you"}{}`:                {fault.BadJSON, "not JSON"},
		`{"name":"you",}`:                 {fault.BadJSON, "not JSON"},
		`[]`:                              {fault.SchemaMismatch, "object"},
		`null`:                            {fault.SchemaMismatch, "object"},
		`{}`:                              {fault.SchemaMismatch, "name"},
		`{"name":1}`:                      {fault.SchemaMismatch, "/name"},
		`{"name":""}`:                     {fault.SchemaMismatch, "/name"},
		`{"name":"toolong"}`:              {fault.SchemaMismatch, "/name"},
		`{"name":"you","x":1}`:            {fault.SchemaMismatch, "x"},
		`{"name":"you","tags":["a",1]}`:   {fault.SchemaMismatch, "/tags/1"},
		`{"name":"you","tags":["a","a"]}`: {fault.SchemaMismatch, "/tags"},
		`{"name":"you","n":1.5}`:          {fault.SchemaMismatch, "/n"},
		`{"name":"you","n":-1}`:           {fault.SchemaMismatch, "/n"},
		`{"name":"you","kind":"c"}`:       {fault.SchemaMismatch, "/kind"},
		`{"name":"you","more":{}}`:        {fault.SchemaMismatch, "/more"},
		strings.Repeat("[", 20000):        {fault.BadJSON, "not JSON"},
	} {
		err := s.Check([]byte(body))
		if want.text == "" {
			if err != nil {
				t.Errorf("%.60s: %v", body, err)
			}

			continue
		}

		if f := fault.From(err); err == nil || f.Code != want.code || !strings.Contains(f.Msg+f.Error(), want.text) || strings.Contains(f.Msg, "\n") {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

func TestSchemasOfThePlatform(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		api  *spec.API
		good string // of a body; nothing is checked if empty
	}{
		"form":                {api(t, "multipart/form-data", `{"type":"object","properties":{"images":{"type":"file"}}}`), ""},
		"no schema":           {&spec.API{Request: &spec.APIMessage{ContentType: "application/json"}}, ""},
		"no request":          {&spec.API{}, ""},
		"no type":             {api(t, "", `{"type":"object","properties":{"a":{"type":"string"}}}`), `{"a":"b"}`},
		"draft 3 and a file":  {api(t, "application/json", `{"type":"object","required":true,"properties":{"a":{"type":"file"}}}`), `{"a":1}`},
		"an array of schemas": {api(t, "application/vnd.x+json", `{"type":"array","items":[{"type":"object","properties":{"a":{"type":"string"}}}]}`), `[{"a":"b"}]`},
	} {
		s, err := apischema.Of(tc.api)
		if err != nil || (s == nil) != (tc.good == "") {
			t.Errorf("%s: %v %v", name, s, err)

			continue
		}

		if s == nil {
			continue
		}

		if err := s.Check([]byte(tc.good)); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		if s.Check([]byte(`"x"`)) == nil {
			t.Errorf("%s: fits anything", name)
		}
	}
}

func TestSchemasReferToNothingOutside(t *testing.T) {
	t.Parallel()

	for _, schema := range []string{
		`{"$ref":"http://127.0.0.1:1/x"}`, `{"$ref":"file:///etc/passwd"}`, `{"$ref":"other.json"}`, `{"$ref":"#/nothing"}`,
		`{"type":"nothing"}`, `{"pattern":"("}`, `{"minLength":"x"}`,
	} {
		if s, err := apischema.Of(api(t, "", schema)); err == nil {
			t.Errorf("%s: %v", schema, s)
		}
	}
}

func FuzzCheck(f *testing.F) {
	s, err := apischema.Of(api(f, "", greeting))
	if err != nil {
		f.Fatal(err)
	}

	f.Add([]byte(`{"name":"you","more":{"name":"x"}}`))
	f.Add([]byte(`{"name":"you","n":1e400}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := s.Check(body); err != nil && fault.From(err).Code.Status() != 400 {
			t.Errorf("%q: %v", body, err)
		}
	})
}
