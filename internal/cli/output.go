package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gopkg.in/yaml.v3"
)

// column is one column of a table: its title and how to read it from a row.
type column struct {
	title string
	value func(row map[string]any) string
}

// field shows a member as it is.
func field(title, key string) column {
	return column{title: title, value: func(row map[string]any) string { return text(row[key]) }}
}

// moment shows a member that holds milliseconds since the epoch.
func moment(title, key string) column {
	return column{title: title, value: func(row map[string]any) string {
		ms, ok := row[key].(float64)
		if !ok || ms == 0 {
			return "-"
		}

		return time.UnixMilli(int64(ms)).Format(time.DateTime)
	}}
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		return firstOf(v, "-")
	case float64:
		return strings.TrimSuffix(fmt.Sprintf("%.3f", v), ".000")
	default:
		return fmt.Sprint(v)
	}
}

// list prints rows as a table, or whole as JSON or YAML.
func (b *base) list(w io.Writer, whole any, rows []map[string]any, columns ...column) error {
	if b.output != "table" {
		return b.whole(w, whole)
	}

	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)

	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}

	_, _ = fmt.Fprintln(tw, strings.Join(titles, "\t"))

	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = strings.ReplaceAll(c.value(row), "\n", " ")
		}

		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}

	return tw.Flush() //nolint:wrapcheck // the output is broken, there is nothing to add
}

// whole prints a value as JSON or YAML; as a table it is YAML too, which reads well for one object.
func (b *base) whole(w io.Writer, v any) error {
	if b.output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)

		return enc.Encode(v) //nolint:wrapcheck // the output is broken, there is nothing to add
	}

	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)

	if err := enc.Encode(plain(v)); err != nil {
		return err //nolint:wrapcheck // the output is broken, there is nothing to add
	}

	return enc.Close() //nolint:wrapcheck // as above
}

// plain turns whole float64 numbers into integers, so that YAML does not write 1.58e+12.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = plain(e)
		}

		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e)
		}

		return out
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}

		return v
	default:
		return v
	}
}

// rows reads a list of objects out of an answer.
func rows(whole map[string]any, key string) []map[string]any {
	list, ok := whole[key].([]any)
	if !ok {
		return nil
	}

	out := make([]map[string]any, 0, len(list))

	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}

	return out
}
