package spec

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// rule checks one JSON value at path and returns it in normal form. Values are what
// encoding/json makes with UseNumber. A rule that finds a mistake records it and may
// return the value as it was: a document with mistakes is never used.
type rule func(m *mistakes, path string, v any) any

// kindOf names the JSON type of v for messages.
func kindOf(v any) string {
	switch t := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + shorten(t.String())
	case string:
		return "the string " + strconv.Quote(shorten(t))
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	default:
		return "a value of an unknown type"
	}
}

// text is a string of least to most bytes that passes every check.
func text(least, most int, checks ...func(string) string) rule {
	return func(m *mistakes, path string, v any) any {
		s, ok := v.(string)
		if !ok {
			m.addf(path, "want a string, got %s", kindOf(v))

			return v
		}

		switch {
		case len(s) < least && s == "":
			m.addf(path, "must not be empty")
		case len(s) < least:
			m.addf(path, "must have at least %d bytes, has %d", least, len(s))
		case len(s) > most:
			m.addf(path, "must have at most %d bytes, has %d", most, len(s))
		case strings.ContainsRune(s, 0):
			m.addf(path, "must not contain a NUL character")
		default:
			for _, check := range checks {
				if msg := check(s); msg != "" {
					m.addf(path, "%s, got %q", msg, shorten(s))

					break
				}
			}
		}

		return s
	}
}

// oneOf is one of the words, letter for letter.
func oneOf(words ...string) rule {
	return func(m *mistakes, path string, v any) any {
		if s, ok := v.(string); !ok || !slices.Contains(words, s) {
			m.addf(path, "want one of %s, got %s", strings.Join(words, ", "), kindOf(v))
		}

		return v
	}
}

// oneOfFold is one of the words in any case, and becomes the word as listed.
func oneOfFold(words ...string) rule {
	return func(m *mistakes, path string, v any) any {
		if s, ok := v.(string); ok {
			for _, w := range words {
				if strings.EqualFold(s, w) {
					return w
				}
			}
		}

		m.addf(path, "want one of %s, got %s", strings.Join(words, ", "), kindOf(v))

		return v
	}
}

// integer is a whole number from least to most.
func integer(least, most int64) rule {
	return func(m *mistakes, path string, v any) any {
		if n, ok := v.(json.Number); ok {
			if i, ok := wholeNumber(n.String()); ok && i >= least && i <= most {
				return json.Number(strconv.FormatInt(i, 10))
			}
		}

		m.addf(path, "want an integer from %d to %d, got %s", least, most, kindOf(v))

		return v
	}
}

// countOrText is an integer from 0 to most that may be written as a string of digits, as the v1 API does.
func countOrText(most int64) rule {
	check := integer(0, most)

	return func(m *mistakes, path string, v any) any {
		if s, ok := v.(string); ok {
			if i, err := strconv.ParseInt(s, 10, 64); err == nil && i >= 0 && i <= most {
				return json.Number(strconv.FormatInt(i, 10))
			}
		}

		return check(m, path, v)
	}
}

// wholeNumber reads an integer in any JSON spelling, such as 8, 8.0 or 8e0.
func wholeNumber(s string) (int64, bool) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, true
	}

	const exact = 1 << 53

	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact {
		return 0, false
	}

	return int64(f), true
}

// number is a finite number from least to most.
func number(least, most float64) rule {
	return func(m *mistakes, path string, v any) any {
		if n, ok := v.(json.Number); ok {
			if f, err := n.Float64(); err == nil && f >= least && f <= most {
				return v
			}
		}

		if math.Abs(least) == math.MaxFloat64 {
			m.addf(path, "want a number, got %s", kindOf(v))
		} else {
			m.addf(path, "want a number from %g to %g, got %s", least, most, kindOf(v))
		}

		return v
	}
}

// anyNumber is a finite number.
func anyNumber() rule { return number(-math.MaxFloat64, math.MaxFloat64) }

// boolean is true or false.
func boolean() rule {
	return func(m *mistakes, path string, v any) any {
		if _, ok := v.(bool); !ok {
			m.addf(path, "want true or false, got %s", kindOf(v))
		}

		return v
	}
}

// list is an array with a bounded number of elements.
func list(most int, elem rule) rule {
	return func(m *mistakes, path string, v any) any {
		a, ok := v.([]any)
		if !ok {
			m.addf(path, "want an array, got %s", kindOf(v))

			return v
		}

		if len(a) > most {
			m.addf(path, "must have at most %d elements, has %d", most, len(a))

			return v
		}

		for i := range a {
			a[i] = elem(m, element(path, i), a[i])
		}

		return a
	}
}

// dict is an object with free keys, in a bounded number.
func dict(most int, key func(string) string, elem rule) rule {
	return func(m *mistakes, path string, v any) any {
		o, ok := v.(map[string]any)
		if !ok {
			m.addf(path, "want an object, got %s", kindOf(v))

			return v
		}

		if len(o) > most {
			m.addf(path, "must have at most %d members, has %d", most, len(o))

			return v
		}

		for _, k := range sortedKeys(o) {
			if msg := key(k); msg != "" {
				m.addf(member(path, k), "%s", msg)

				continue
			}

			o[k] = elem(m, member(path, k), o[k])
		}

		return o
	}
}

// object is an object with known members. Members that are not known are refused when
// strict and dropped otherwise, and so are nulls.
type object struct {
	fields   map[string]rule
	required []string
	strict   bool
	// after looks at several members together; it runs when the members alone are right.
	after func(m *mistakes, path string, o map[string]any)
}

func (ob object) check(m *mistakes, path string, v any) any {
	o, ok := v.(map[string]any)
	if !ok {
		m.addf(path, "want an object, got %s", kindOf(v))

		return v
	}

	before := len(m.errs) + m.dropped
	out := make(map[string]any, len(o))

	for _, k := range sortedKeys(o) {
		check, known := ob.fields[k]

		switch {
		case !known && ob.strict:
			m.addf(member(path, k), "unknown key%s", ob.suggest(k))
		case !known || o[k] == nil && !ob.strict:
		default:
			out[k] = check(m, member(path, k), o[k])
		}
	}

	for _, k := range ob.required {
		if _, ok := out[k]; !ok {
			m.addf(member(path, k), "is required")
		}
	}

	if ob.after != nil && len(m.errs)+m.dropped == before {
		ob.after(m, path, out)
	}

	return out
}

// suggest names the known key that differs from k only in case or in - and _.
func (ob object) suggest(k string) string {
	plain := strings.NewReplacer("-", "", "_", "")

	for _, known := range sortedKeys(ob.fields) {
		if strings.EqualFold(plain.Replace(known), plain.Replace(k)) {
			return "; did you mean " + known + "?"
		}
	}

	return ""
}

func sortedKeys[V any](o map[string]V) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}

	slices.Sort(keys)

	return keys
}

// relativePath refuses whatever does not name something inside the package.
func relativePath(s string) string {
	if strings.HasPrefix(s, "/") || strings.Contains(s, `\`) || !utf8.ValidString(s) {
		return "want a relative path with / between its parts"
	}

	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == ".." {
			return "want a relative path without empty parts and without .."
		}
	}

	return ""
}
