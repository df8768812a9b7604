package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFileBytes bounds a configuration file.
const maxFileBytes = 1 << 20

// Mistake is one thing wrong with a configuration.
type Mistake struct { //nolint:errname // a mistake in a file, more than an error of a call
	Path string // edge.http.address
	Line int    // 0 if unknown
	Msg  string
}

// Error implements error.
func (m *Mistake) Error() string {
	where := m.Path
	if where == "" {
		where = "(top level)"
	}

	if m.Line > 0 {
		return fmt.Sprintf("%s (line %d): %s", where, m.Line, m.Msg)
	}

	return where + ": " + m.Msg
}

// At is a shorthand for Validate methods.
func At(path, format string, args ...any) error {
	return &Mistake{Path: path, Msg: fmt.Sprintf(format, args...)}
}

// Prefix puts path in front of every mistake in err, for nested Validate methods.
func Prefix(path string, err error) error {
	if err == nil {
		return nil
	}

	var all []error

	for _, e := range flatten(err) {
		var m *Mistake
		if errors.As(e, &m) {
			c := *m
			c.Path = strings.TrimSuffix(path+"."+m.Path, ".")
			all = append(all, &c)
		} else {
			all = append(all, &Mistake{Path: path, Msg: e.Error()})
		}
	}

	return errors.Join(all...)
}

// Mistakes lists the single errors that err joins.
func Mistakes(err error) []error { return flatten(err) }

func flatten(err error) []error {
	if err == nil {
		return nil
	}

	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, flatten(e)...)
		}

		return out
	}

	return []error{err}
}

// Validator is implemented by configurations that check themselves.
type Validator interface{ Validate() error }

// LoadFile reads a YAML file into dst, which holds the defaults. The error joins all mistakes.
func LoadFile(path string, dst any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}

	if len(data) > maxFileBytes {
		return fmt.Errorf("read configuration %s: over %d bytes", path, maxFileBytes)
	}

	return Load(data, dst)
}

// Load reads YAML into dst, which holds the defaults. dst is a pointer to a struct.
func Load(data []byte, dst any) error {
	var root yaml.Node

	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return &Mistake{Msg: strings.TrimPrefix(err.Error(), "yaml: ")}
	}

	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return &Mistake{Msg: "more than one YAML document"}
	}

	d := decoder{}

	if len(root.Content) > 0 {
		d.value("", root.Content[0], reflect.ValueOf(dst).Elem())
	}

	errs := d.mistakes

	if v, ok := dst.(Validator); ok {
		if err := v.Validate(); err != nil {
			errs = append(errs, flatten(err)...)
		}
	}

	return errors.Join(errs...)
}

type decoder struct{ mistakes []error }

func (d *decoder) add(path string, n *yaml.Node, format string, args ...any) {
	d.mistakes = append(d.mistakes, &Mistake{Path: path, Line: n.Line, Msg: fmt.Sprintf(format, args...)})
}

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		d.add(path, n, "aliases are not supported")

		return
	}

	if n.Tag == "!!null" {
		return
	}

	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}

		d.value(path, n, v.Elem())

		return
	}

	if v.CanAddr() && (implements[yaml.Unmarshaler](v) || implements[encoding.TextUnmarshaler](v)) {
		d.leaf(path, n, v)

		return
	}

	switch v.Kind() { //nolint:exhaustive // everything else is a leaf
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Slice:
		d.sequence(path, n, v)
	case reflect.Map:
		d.mapping(path, n, v)
	default:
		d.leaf(path, n, v)
	}
}

func implements[T any](v reflect.Value) bool {
	_, ok := v.Addr().Interface().(T)

	return ok
}

func (d *decoder) leaf(path string, n *yaml.Node, v reflect.Value) {
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.add(path, n, "%s", leafMessage(n, v, err))
	}
}

func leafMessage(n *yaml.Node, v reflect.Value, err error) string {
	var te *yaml.TypeError
	if errors.As(err, &te) {
		if n.Kind != yaml.ScalarNode {
			return "want " + v.Type().String() + ", got a " + kindName(n.Kind)
		}

		return fmt.Sprintf("%q is not a valid %s", n.Value, v.Type().String())
	}

	return err.Error()
}

func kindName(k yaml.Kind) string {
	switch k {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "sequence"
	case yaml.ScalarNode, yaml.DocumentNode, yaml.AliasNode:
		return "scalar"
	default:
		return "scalar"
	}
}

func (d *decoder) structure(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.add(path, n, "want a mapping, got a %s", kindName(n.Kind))

		return
	}

	fields := fieldIndex(v.Type())
	seen := map[string]bool{}

	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		sub := join(path, key.Value)

		idx, ok := fields[key.Value]

		switch {
		case !ok:
			d.add(sub, key, "unknown key%s", suggest(key.Value, fields))
		case seen[key.Value]:
			d.add(sub, key, "given twice")
		default:
			seen[key.Value] = true
			d.value(sub, val, v.FieldByIndex(idx))
		}
	}
}

func (d *decoder) sequence(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.add(path, n, "want a list, got a %s", kindName(n.Kind))

		return
	}

	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(fmt.Sprintf("%s[%d]", path, i), c, out.Index(i))
	}

	v.Set(out)
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.add(path, n, "want a mapping, got a %s", kindName(n.Kind))

		return
	}

	out := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)

	for i := 0; i+1 < len(n.Content); i += 2 {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, n.Content[i].Value), n.Content[i+1], elem)
		out.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), elem)
	}

	v.Set(out)
}

func fieldIndex(t reflect.Type) map[string][]int {
	out := map[string][]int{}

	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() {
			continue
		}

		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out[name] = f.Index
		}
	}

	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}

	return path + "." + key
}

func suggest(key string, fields map[string][]int) string {
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}

	slices.Sort(names)

	best, bestDist := "", 3
	for _, n := range names {
		if dist := distance(key, n); dist < bestDist {
			best, bestDist = n, dist
		}
	}

	if best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}

	return "; known keys: " + strings.Join(names, ", ")
}

// distance is the Levenshtein distance; both strings are short.
func distance(a, b string) int {
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}

	for i := range len(a) {
		cur := make([]int, len(b)+1)
		cur[0] = i + 1

		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}

			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
		}

		prev = cur
	}

	return prev[len(b)]
}
