package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// maxToldMistakes bounds how many mistakes one answer names.
const maxToldMistakes = 10

// Unmarshal reads one JSON value into dst, a pointer. Members that dst does not know are
// ignored, because v1 clients send some; names are compared letter for letter. A value of
// the wrong type is an InvalidArgument fault with its path; null counts as absent. Below a
// field with the tag web:"strict" unknown members are mistakes.
func Unmarshal(data []byte, maxDepth int, dst any) error {
	tree, err := parse(data, maxDepth)
	if err != nil {
		return err
	}

	var d decoder
	d.value("", tree, reflect.ValueOf(dst).Elem())

	return Invalid(d.errs...)
}

// Fieldf is the fault for one wrong field.
func Fieldf(path, format string, args ...any) error {
	return Invalid(&spec.FieldError{Path: path, Msg: fmt.Sprintf(format, args...)})
}

// Required is the fault for a missing field.
func Required(path string) error { return Fieldf(path, "is required and cannot be empty") }

// Invalid makes one InvalidArgument fault of errors, joined ones included; nil if there are none.
func Invalid(errs ...error) error {
	var texts []string

	for _, err := range Flatten(errs...) {
		var f *spec.FieldError
		if errors.As(err, &f) && f.Path != "" {
			texts = append(texts, fmt.Sprintf("The field [%s] %s", f.Path, f.Msg))
		} else {
			texts = append(texts, err.Error())
		}
	}

	if len(texts) == 0 {
		return nil
	}

	if n := len(texts) - maxToldMistakes; n > 0 {
		texts = append(texts[:maxToldMistakes], fmt.Sprintf("and %d more mistakes", n))
	}

	return fault.New(fault.InvalidArgument, "Invalid argument. %s.", strings.Join(texts, "; "))
}

// Flatten lists the errors that errors.Join joined.
func Flatten(errs ...error) []error {
	var out []error

	for _, err := range errs {
		if err == nil {
			continue
		}

		if j, ok := err.(interface{ Unwrap() []error }); ok {
			out = append(out, Flatten(j.Unwrap()...)...)
		} else {
			out = append(out, err)
		}
	}

	return out
}

func parse(data []byte, maxDepth int) (any, error) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fault.New(fault.EmptyBody, "")
	case !utf8.Valid(data):
		return nil, fault.New(fault.BadJSON, "Incorrect JSON format of the input data: it is not UTF-8.")
	case depth(data) > maxDepth:
		return nil, fault.New(fault.BadJSON, "Incorrect JSON format of the input data: nested deeper than %d levels.", maxDepth)
	}

	var tree any

	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()

	if err := dec.Decode(&tree); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early")
		}

		return nil, fault.New(fault.BadJSON, "Incorrect JSON format of the input data: %s.", err)
	}

	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.BadJSON, "Incorrect JSON format of the input data: something follows the value.")
	}

	return tree, nil
}

// depth is the deepest nesting of brackets outside strings.
func depth(data []byte) int {
	deepest, now, inString := 0, 0, false

	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}

	return deepest
}

// decoder assigns a tree to Go values and collects mistakes.
type decoder struct {
	errs   []error
	strict bool
}

func (d *decoder) addf(path, format string, args ...any) {
	if path == "" {
		path = "body"
	}

	d.errs = append(d.errs, &spec.FieldError{Path: path, Msg: fmt.Sprintf(format, args...)})
}

//nolint:gochecknoglobals // constant
var rawMessage = reflect.TypeFor[json.RawMessage]()

func (d *decoder) value(path string, v any, dst reflect.Value) {
	if v == nil || len(d.errs) > maxToldMistakes {
		return
	}

	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		d.value(path, v, dst.Elem())

		return
	}

	if u, ok := dst.Addr().Interface().(json.Unmarshaler); ok && dst.Type() != rawMessage {
		if err := u.UnmarshalJSON(encode(v)); err != nil {
			d.addf(path, "%s", err)
		}

		return
	}

	switch dst.Kind() { //nolint:exhaustive // the rest is scalar
	case reflect.Struct:
		d.object(path, v, dst)
	case reflect.Map:
		d.dict(path, v, dst)
	case reflect.Slice:
		d.list(path, v, dst)
	case reflect.Interface:
		dst.Set(reflect.ValueOf(v))
	default:
		d.scalar(path, v, dst)
	}
}

func (d *decoder) object(path string, v any, dst reflect.Value) {
	o, ok := v.(map[string]any)
	if !ok {
		d.addf(path, "must be an object, not %s", kindOf(v))

		return
	}

	known := make(map[string]bool, dst.NumField())

	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		if f.Anonymous {
			d.object(path, v, dst.Field(i))

			continue
		}

		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}

		known[name] = true
		outer := d.strict
		d.strict = outer || f.Tag.Get("web") == "strict"
		d.value(join(path, name), o[name], dst.Field(i))
		d.strict = outer
	}

	if d.strict {
		for _, name := range slices.Sorted(maps.Keys(o)) {
			if !known[name] {
				d.addf(join(path, name), "is unknown")
			}
		}
	}
}

func (d *decoder) dict(path string, v any, dst reflect.Value) {
	o, ok := v.(map[string]any)
	if !ok {
		d.addf(path, "must be an object, not %s", kindOf(v))

		return
	}

	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(o)))

	for k, e := range o {
		elem := reflect.New(dst.Type().Elem()).Elem()
		d.value(join(path, k), e, elem)
		dst.SetMapIndex(reflect.ValueOf(k), elem)
	}
}

func (d *decoder) list(path string, v any, dst reflect.Value) {
	if dst.Type() == rawMessage {
		dst.SetBytes(encode(v))

		return
	}

	a, ok := v.([]any)
	if !ok {
		d.addf(path, "must be an array, not %s", kindOf(v))

		return
	}

	dst.Set(reflect.MakeSlice(dst.Type(), len(a), len(a)))

	for i, e := range a {
		at := path + "[" + strconv.Itoa(i) + "]"
		if e == nil {
			d.addf(at, "must not be null")
		}

		d.value(at, e, dst.Index(i))
	}
}

func (d *decoder) scalar(path string, v any, dst reflect.Value) {
	switch dst.Kind() { //nolint:exhaustive // the default is a broken invariant
	case reflect.String:
		if s, ok := v.(string); ok {
			dst.SetString(s)
		} else {
			d.addf(path, "must be a string, not %s", kindOf(v))
		}
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			dst.SetBool(b)
		} else {
			d.addf(path, "must be true or false, not %s", kindOf(v))
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if n, ok := whole(v); ok && !dst.OverflowInt(n) {
			dst.SetInt(n)
		} else {
			d.addf(path, "must be an integer, not %s", kindOf(v))
		}
	case reflect.Float64:
		n, _ := v.(json.Number)
		if f, err := n.Float64(); err == nil {
			dst.SetFloat(f)
		} else {
			d.addf(path, "must be a number, not %s", kindOf(v))
		}
	default:
		panic("BUG: cannot decode into " + dst.Type().String())
	}
}

// whole reads an integer in any JSON spelling, such as 8 or 8.0.
func whole(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}

	if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
		return i, true
	}

	const exact = 1 << 53

	f, err := n.Float64()
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact {
		return 0, false
	}

	return int64(f), true
}

// encode writes a parsed value again.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: parsed JSON does not encode: " + err.Error())
	}

	return b
}

func join(path, name string) string {
	if path == "" {
		return clip(name)
	}

	return path + "." + clip(name)
}

// clip shortens what came from outside before it goes into a message.
func clip(s string) string {
	const most = 64

	if len(s) <= most {
		return s
	}

	return strings.ToValidUTF8(s[:most], "") + "…"
}

func kindOf(v any) string {
	switch t := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + clip(t.String())
	case string:
		return "a string"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
