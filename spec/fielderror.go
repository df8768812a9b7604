package spec

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxMistakes bounds how many mistakes one document can report.
const maxMistakes = 100

// FieldError is one mistake in a document and the place where it stands.
type FieldError struct {
	// Path is written as in "serving.preprocess[0].image.width"; empty means the document itself.
	Path string
	Msg  string
}

// Error implements error.
func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Msg
	}

	return e.Path + ": " + e.Msg
}

// mistakes collects what is wrong with a document, up to maxMistakes.
type mistakes struct {
	errs    []error
	dropped int
}

func (m *mistakes) addf(path, format string, args ...any) {
	if len(m.errs) >= maxMistakes {
		m.dropped++

		return
	}

	m.errs = append(m.errs, &FieldError{Path: path, Msg: fmt.Sprintf(format, args...)})
}

// add records err, if any, as a mistake at path.
func (m *mistakes) add(path string, err error) {
	if err != nil {
		m.addf(path, "%s", err.Error())
	}
}

// err joins the mistakes; nil when there are none.
func (m *mistakes) err() error {
	if m.dropped > 0 {
		return errors.Join(append(m.errs, fmt.Errorf("and %d more mistakes", m.dropped))...)
	}

	return errors.Join(m.errs...)
}

// member is the path of a member of the object at path.
func member(path, key string) string {
	if !plainKey(key) {
		return path + "[" + strconv.Quote(shorten(key)) + "]"
	}

	if path == "" {
		return key
	}

	return path + "." + key
}

// element is the path of an element of the array at path.
func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func plainKey(key string) bool {
	if key == "" || len(key) > 64 {
		return false
	}

	for _, r := range key {
		if !isASCIIWord(r) && r != '-' {
			return false
		}
	}

	return true
}

func isASCIIWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

// shorten cuts text that came from outside before it goes into a message.
func shorten(text string) string {
	const most = 48

	if len(text) <= most {
		return text
	}

	cut := most
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}

	return text[:cut] + "…"
}
