package request

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
)

// Field is a header field. Its value may hold a template.
type Field struct{ Name, Value string }

// Item is one kind of request.
type Item struct {
	Name   string
	Weight int // 0 means 1
	Method string
	// Target is the path with its query, raw, as on the request line. It may hold a template.
	Target string
	Host   string
	Fields []Field
	// Body may hold a template, unless Binary is set.
	Body   []byte
	Binary bool
	// Signer signs each request, nil none.
	Signer *sign.Prepared
}

type compiled struct {
	Item

	target Template
	body   Template
	fields []compiledField
	static []byte // the whole request, if nothing in it moves
	upto   int    // sum of weights up to this item

	// What a signature covers, as bytes.
	method, host, kind []byte
}

type compiledField struct {
	name  string
	value Template
}

// Mix is a weighted list of Items.
type Mix struct {
	items []compiled
	total int
	seq   atomic.Int64
}

// NewMix compiles items.
func NewMix(items []Item) (*Mix, error) {
	if len(items) == 0 {
		return nil, errors.New("nothing to send")
	}

	m := &Mix{}

	for i := range items {
		c, err := compile(items[i])
		if err != nil {
			return nil, err
		}

		m.total += c.Weight
		c.upto = m.total
		m.items = append(m.items, c)
	}

	return m, nil
}

// Names lists the names of the items.
func (m *Mix) Names() []string {
	names := make([]string, len(m.items))
	for i := range m.items {
		names[i] = m.items[i].Name
	}

	return names
}

func compile(it Item) (compiled, error) {
	c := compiled{Item: it}
	c.Weight = max(it.Weight, 1)

	if it.Weight < 0 {
		return c, fmt.Errorf("%s: weight %d: must be positive", it.Name, it.Weight)
	}

	if !validToken(it.Method) {
		return c, fmt.Errorf("method %q: not a method of HTTP", it.Method)
	}

	var err error
	if c.target, err = ParseTemplate(it.Target); err != nil {
		return c, fmt.Errorf("path: %w", err)
	}

	if !it.Binary {
		if c.body, err = ParseTemplate(string(it.Body)); err != nil {
			return c, fmt.Errorf("body: %w", err)
		}
	} else {
		c.body = Template{parts: []part{{kind: literal, text: string(it.Body)}}}
	}

	for _, f := range it.Fields {
		if err := c.addField(f); err != nil {
			return c, err
		}
	}

	return c, c.freeze()
}

func (c *compiled) addField(f Field) error {
	if !validToken(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00") {
		return fmt.Errorf("header %q: not a header field of HTTP", f.Name)
	}

	switch strings.ToLower(f.Name) {
	case "host":
		c.Host = f.Value

		return nil
	case "content-length", "transfer-encoding", "connection":
		return fmt.Errorf("header %q: is set by the load tool itself", f.Name)
	case "content-type":
		c.kind = []byte(f.Value)
	}

	value, err := ParseTemplate(f.Value)
	if err != nil {
		return fmt.Errorf("header %q: %w", f.Name, err)
	}

	c.fields = append(c.fields, compiledField{f.Name, value})

	return nil
}

// freeze renders the request once if nothing in it moves, and checks it.
func (c *compiled) freeze() error {
	v := values{rng: rand.New(rand.NewPCG(1, 1)), wall: time.Unix(0, 0)} //nolint:gosec // a trial that is thrown away
	target := string(c.target.append(nil, &v))

	u, err := url.ParseRequestURI(target)
	if err != nil || u.IsAbs() && !strings.HasPrefix(target, "/") || strings.ContainsAny(target, " \r\n#") {
		return fmt.Errorf("path %q: want a path that begins with a slash", target)
	}

	c.method, c.host = []byte(c.Method), []byte(c.Host)
	moving := c.Signer != nil || !c.target.Static() || !c.body.Static() ||
		slices.ContainsFunc(c.fields, func(f compiledField) bool { return !f.value.Static() })
	if moving {
		return nil
	}

	s := &Source{}
	c.static = s.render(nil, c, &v)

	return nil
}

func validToken(s string) bool {
	const others = "!#$%&'*+-.^_`|~"

	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		letter := r|0x20 >= 'a' && r|0x20 <= 'z'

		return !letter && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	})
}

// hasBody tells whether a request tells the length of its body, even of none.
func hasBody(method string, n int) bool {
	return n > 0 || (method != http.MethodGet && method != http.MethodHead && method != http.MethodDelete && method != http.MethodOptions)
}
