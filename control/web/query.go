package web

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Query reads the parameters after "?" and collects what is wrong with them.
type Query struct {
	values url.Values
	errs   []error
}

// Query parses the parameters of the request.
func (r *Request) Query() *Query {
	values, err := url.ParseQuery(r.HTTP.URL.RawQuery)
	q := &Query{values: values}

	if err != nil {
		q.errs = append(q.errs, &spec.FieldError{Path: "query", Msg: "cannot be parsed"})
	}

	return q
}

// String is a parameter, "" if absent.
func (q *Query) String(name string) string {
	s := q.values.Get(name)
	if !printable(s) || len(s) > 1024 {
		q.errs = append(q.errs, &spec.FieldError{Path: clip(name), Msg: "must be at most 1024 printable characters"})

		return ""
	}

	return s
}

// Enum is a parameter that is one of allowed, or fallback if absent.
func (q *Query) Enum(name, fallback string, allowed ...string) string {
	s := q.String(name)
	if s == "" {
		return fallback
	}

	if !slices.Contains(allowed, s) {
		q.errs = append(q.errs, &spec.FieldError{Path: name, Msg: "must be one of " + strings.Join(allowed, ", ")})
	}

	return s
}

// Int is a parameter from least to most, or fallback if absent.
func (q *Query) Int(name string, fallback, least, most int64) int64 {
	s := q.String(name)
	if s == "" {
		return fallback
	}

	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		q.errs = append(q.errs, &spec.FieldError{
			Path: name, Msg: "must be an integer from " + strconv.FormatInt(least, 10) + " to " + strconv.FormatInt(most, 10),
		})
	}

	return n
}

// Bool is a parameter that is true or false, false if absent.
func (q *Query) Bool(name string) bool {
	s := strings.ToLower(q.String(name))
	if s != "" && s != "true" && s != "false" {
		q.errs = append(q.errs, &spec.FieldError{Path: name, Msg: "must be true or false"})
	}

	return s == "true"
}

// Has reports whether a parameter is given.
func (q *Query) Has(name string) bool { return q.values.Has(name) }

// Err is the fault for everything that was wrong so far.
func (q *Query) Err() error { return Invalid(q.errs...) }

// Page is the part of a list that the caller wants.
type Page struct {
	Offset, Limit int
}

const maxPage = 1000

// Page reads offset (default 0) and limit (default 1000). As on the platform, offset counts
// entries, not pages.
func (q *Query) Page() Page {
	p := Page{
		Offset: int(q.Int("offset", 0, 0, 1<<31-1)),
		Limit:  int(q.Int("limit", maxPage, 1, 1<<31-1)),
	}
	p.Limit = min(p.Limit, maxPage)

	return p
}

// Cut returns the page of items.
func Cut[T any](p Page, items []T) []T {
	from := min(p.Offset, len(items))

	return items[from:min(from+p.Limit, len(items))]
}

// NotFound is the fault for an object that does not exist.
func NotFound(kind, id string) error {
	return fault.New(fault.ObjectNotFound, "The %s %s does not exist.", kind, clip(id))
}
