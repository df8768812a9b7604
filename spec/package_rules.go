package spec

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Bounds of lists and texts in config.json outside "serving".
const (
	maxAPIs      = 256
	maxCommand   = 256
	maxEndpoints = 256
	maxEnvs      = 256
	maxHeaders   = 32
	maxText      = 4096
	maxSeconds   = 24 * 60 * 60
)

// packageRule is the shape of config.json.
func packageRule() object {
	return object{
		fields: map[string]rule{
			"model_type":       oneOf(ModelTypes()...),
			"model_algorithm":  text(1, 36, algorithmName),
			"apis":             list(maxAPIs, apiRule().check),
			"schema_check":     boolean(),
			"health":           healthRule().check,
			"readiness_health": healthRule().check,
			"startup_health":   healthRule().check,
			"command":          commandRule(),
			"envs":             dict(maxEnvs, envName, text(0, maxText)),
			"working_dir":      text(1, maxText, relativePath),
			"user":             text(1, 256),
			"protocol":         oneOfFold("http", "https", "ws", "wss"),
			"port":             countOrText(65535),
			"tls_verify":       boolean(),
			"tls_ca_cert":      text(1, maxText, relativePath),
			"endpoints":        list(maxEndpoints, endpointRule().check),
			"serving":          servingRule().check,
		},
		after: func(m *mistakes, path string, o map[string]any) {
			uniqueAPIs(m, member(path, "apis"), o["apis"])
		},
	}
}

// ModelTypes lists what model_type may be.
func ModelTypes() []string {
	return []string{
		string(EngineONNX), string(EngineCustom), string(EngineExternal), "Image", "TensorFlow", "PyTorch", "MindSpore",
		"MXNet", "Caffe", "Spark_MLlib", "Scikit_Learn", "XGBoost", "Template",
	}
}

func algorithmName(s string) string {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if i == 0 && !letter || !isASCIIWord(r) && r != '-' {
			return "must start with a letter and hold only letters, digits, - and _"
		}
	}

	return ""
}

func envName(s string) string {
	if s == "" || len(s) > 256 || strings.ContainsAny(s, "=\x00") {
		return "is not a name for an environment variable"
	}

	return ""
}

// commandRule is a program and its arguments.
func commandRule() rule {
	args := list(maxCommand, text(0, maxText))

	return func(m *mistakes, path string, v any) any {
		if a, ok := v.([]any); ok && len(a) > 0 && a[0] == "" {
			m.addf(element(path, 0), "must name a program")

			return v
		}

		return args(m, path, v)
	}
}

// apiRule is a declared path of an engine; url defaults to "/" and method to POST.
func apiRule() object {
	return object{
		fields: map[string]rule{
			"protocol": oneOfFold("http", "https", "ws", "wss"),
			"url":      text(1, maxText, apiPath),
			"method": oneOfFold(http.MethodPost, http.MethodGet, http.MethodPut, http.MethodPatch,
				http.MethodDelete, http.MethodHead, http.MethodOptions),
			"request":  messageRule,
			"response": messageRule,
		},
		after: func(_ *mistakes, _ string, o map[string]any) {
			if _, ok := o["url"]; !ok {
				o["url"] = "/"
			}

			if _, ok := o["method"]; !ok {
				o["method"] = http.MethodPost
			}
		},
	}
}

func apiPath(s string) string {
	if !strings.HasPrefix(s, "/") {
		return "want a path that starts with /"
	}

	for _, r := range s {
		if r <= ' ' || r == 0x7f || r == '?' || r == '#' {
			return "want a path without spaces, control characters, ? and #"
		}
	}

	for part := range strings.SplitSeq(s, "/") {
		if part == ".." || part == "." {
			return "want a path without . and .. parts"
		}
	}

	return ""
}

func uniqueAPIs(m *mistakes, path string, v any) {
	apis, _ := v.([]any)
	seen := make(map[string]int, len(apis))

	for i, a := range apis {
		o, _ := a.(map[string]any)
		method, _ := o["method"].(string)
		address, _ := o["url"].(string)
		key := method + " " + address

		if first, ok := seen[key]; ok {
			m.addf(element(path, i), "declares %s a second time; apis[%d] has it already", key, first)

			continue
		}

		seen[key] = i
	}
}

// messageRule is a request or a response. The platform's documents write the content type
// with several spellings of its key.
func messageRule(m *mistakes, path string, v any) any {
	if o, ok := v.(map[string]any); ok {
		for k, value := range o {
			if k != contentTypeKey && strings.EqualFold(k, contentTypeKey) {
				if _, both := o[contentTypeKey]; !both {
					o[contentTypeKey] = value
				}

				delete(o, k)
			}
		}
	}

	return object{fields: map[string]rule{
		contentTypeKey: text(1, 256),
		"data":         schemaRule,
	}}.check(m, path, v)
}

const contentTypeKey = "Content-type"

// schemaRule is a JSON Schema as the platform writes it: items may be a schema or an array of
// schemas, and type "file" stands for an uploaded file. Other keywords are kept as they are.
func schemaRule(m *mistakes, path string, v any) any {
	o, ok := v.(map[string]any)
	if !ok {
		m.addf(path, "want a JSON Schema object, got %s", kindOf(v))

		return v
	}

	for _, k := range sortedKeys(o) {
		schemaKeyword(m, member(path, k), k, o[k])
	}

	return o
}

func schemaKeyword(m *mistakes, path, keyword string, v any) {
	switch keyword {
	case "type":
		if _, many := v.([]any); many {
			list(8, text(1, 64))(m, path, v)
		} else {
			text(1, 64)(m, path, v)
		}
	case "properties":
		dict(4096, func(string) string { return "" }, schemaRule)(m, path, v)
	case "items":
		if _, many := v.([]any); many {
			list(256, schemaRule)(m, path, v)
		} else {
			schemaRule(m, path, v)
		}
	case "required":
		if _, flag := v.(bool); !flag { // draft 3 wrote true
			list(4096, text(0, maxText))(m, path, v)
		}
	case "enum":
		list(4096, func(_ *mistakes, _ string, v any) any { return v })(m, path, v)
	case "minItems", "maxItems", "minLength", "maxLength":
		integer(0, 1<<53)(m, path, v)
	}
}

// healthRule is a probe.
func healthRule() object {
	return object{
		fields: map[string]rule{
			"check_method":          oneOfFold("HTTP", "EXEC"),
			"protocol":              oneOfFold("http", "https"),
			"url":                   text(1, maxText, healthURL),
			"command":               text(1, maxText),
			"initial_delay_seconds": countOrText(maxSeconds),
			"timeout_seconds":       countOrText(maxSeconds),
			"period_seconds":        countOrText(maxSeconds),
			"failure_threshold":     countOrText(1000),
		},
		after: func(m *mistakes, path string, o map[string]any) {
			if _, ok := o["command"]; !ok && o["check_method"] == "EXEC" {
				m.addf(member(path, "command"), "is required for check_method EXEC")
			}
		},
	}
}

func healthURL(s string) string {
	if !strings.HasPrefix(s, "/") {
		return "want a path that starts with /"
	}

	if _, err := url.ParseRequestURI(s); err != nil {
		return "want a path of a URL"
	}

	return ""
}

// endpointRule is a fixed address of an External engine.
func endpointRule() object {
	return object{
		fields: map[string]rule{
			"url":                  text(1, maxText, endpointURL),
			"weight":               integer(0, 1000),
			"headers":              dict(maxHeaders, headerName, text(0, maxText, headerValue)),
			"path_prefix":          text(1, maxText, apiPath),
			"insecure_skip_verify": boolean(),
			"ca_cert":              text(1, maxText, relativePath),
		},
		required: []string{"url"},
		after: func(m *mistakes, path string, o map[string]any) {
			uniqueHeaders(m, member(path, "headers"), o["headers"])

			if _, ca := o["ca_cert"]; ca && o["insecure_skip_verify"] == true {
				m.addf(member(path, "ca_cert"), "has no effect with insecure_skip_verify")
			}
		},
	}
}

func endpointURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "want an address such as http://host:port"
	}

	switch u.Scheme {
	case "http", "https", "ws", "wss":
	default:
		return "want an address that starts with http://, https://, ws:// or wss://"
	}

	if u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "want an address with a host and without user, query and fragment"
	}

	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "want a port from 1 to 65535"
		}
	}

	return ""
}

func headerName(s string) string {
	if s == "" || len(s) > 256 {
		return "is not a header name"
	}

	for _, r := range s {
		if !isASCIIWord(r) && !strings.ContainsRune("!#$%&'*+-.^`|~", r) {
			return "is not a header name"
		}
	}

	if ownHeader(strings.ToLower(s)) {
		return "is a header that the gateway sets itself"
	}

	return ""
}

// ownHeader reports whether the gateway says itself where a request and its connection end, or how
// a WebSocket begins, by a header. A second one could turn one request into two.
func ownHeader(lower string) bool {
	switch lower {
	case "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}

	return strings.HasPrefix(lower, "sec-websocket-")
}

// uniqueHeaders refuses names that differ in case alone: both would be sent.
func uniqueHeaders(m *mistakes, path string, v any) {
	headers, _ := v.(map[string]any)
	seen := make(map[string]string, len(headers))

	for _, name := range sortedKeys(headers) {
		lower := strings.ToLower(name)
		if first, ok := seen[lower]; ok {
			m.addf(member(path, name), "is the same header as %s", first)
		}

		seen[lower] = name
	}
}

func headerValue(s string) string {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return "must not contain control characters"
		}
	}

	return ""
}
