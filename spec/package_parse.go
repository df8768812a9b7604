package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Bounds of config.json.
const (
	MaxPackageConfigBytes = 1 << 20
	MaxPackageConfigDepth = 64
)

// ParsePackageConfig reads config.json and reports every mistake at once, as FieldErrors
// joined by errors.Join. Unknown members outside "serving" are ignored: the platform writes
// some of its own. Numbers of health blocks and the port may be strings, as the platform's
// own documents have them. Of members given twice the last one counts.
//
// model_type may be missing, because the v1 API states it beside config.json. Whoever
// knows it sets ModelType and calls CheckEngine; ParsePackageConfig does so itself when
// model_type is there.
func ParsePackageConfig(data []byte) (PackageConfig, error) {
	tree, err := decodeTree(data)
	if err != nil {
		return PackageConfig{}, err
	}

	var m mistakes

	tree = packageRule().check(&m, "", tree)

	if err := m.err(); err != nil {
		return PackageConfig{}, err
	}

	// Only checked members are left in the tree, in normal form, so this cannot fail on
	// what a user wrote. Decoding from the tree also keeps encoding/json from matching
	// keys without regard to case.
	clean, err := json.Marshal(tree)
	if err != nil {
		return PackageConfig{}, fmt.Errorf("encode checked config: %w", err)
	}

	var c PackageConfig
	if err := json.Unmarshal(clean, &c); err != nil {
		return PackageConfig{}, fmt.Errorf("decode checked config: %w", err)
	}

	if c.ModelType == "" {
		return c, nil
	}

	if err := c.CheckEngine(); err != nil {
		return PackageConfig{}, err
	}

	return c, nil
}

// CheckEngine reports what the engine kind wants and the config lacks, or the reverse.
func (c *PackageConfig) CheckEngine() error {
	var m mistakes

	switch c.Engine() {
	case EngineExternal:
		if len(c.Endpoints) == 0 {
			m.addf("endpoints", "is required for model_type External")
		}

		if len(c.Command) > 0 {
			m.addf("command", "must not be given for model_type External")
		}
	case EngineCustom:
		if len(c.Command) == 0 && c.ModelType == string(EngineCustom) {
			m.addf("command", "is required for model_type Custom")
		}
	case EngineONNX:
	}

	if c.Engine() != EngineExternal && len(c.Endpoints) > 0 {
		m.addf("endpoints", "is for model_type External only")
	}

	if c.Engine() != EngineONNX && c.Serving != nil {
		m.addf("serving", "is for models that sluice-runtime runs, not for engine %s", c.Engine())
	}

	if len(c.Command) > 0 && c.ModelType == string(EngineONNX) {
		m.addf("command", "must not be given for model_type ONNX")
	}

	return m.err()
}

// decodeTree reads one JSON value within the bounds, with numbers kept as text.
func decodeTree(data []byte) (any, error) {
	if len(data) > MaxPackageConfigBytes {
		return nil, &FieldError{Msg: fmt.Sprintf("is larger than %d bytes", MaxPackageConfigBytes)}
	}

	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &FieldError{Msg: "is empty"}
	}

	if !utf8.Valid(data) {
		return nil, &FieldError{Msg: "is not valid UTF-8"}
	}

	if nesting(data) > MaxPackageConfigDepth {
		return nil, &FieldError{Msg: fmt.Sprintf("is nested deeper than %d levels", MaxPackageConfigDepth)}
	}

	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()

	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, syntaxError(data, err, dec.InputOffset())
	}

	end := dec.InputOffset()
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &FieldError{Msg: "has more text after the end of the JSON value, at " + position(data, end)}
	}

	return tree, nil
}

func syntaxError(data []byte, err error, offset int64) error {
	var syntax *json.SyntaxError

	switch {
	case errors.As(err, &syntax):
		return &FieldError{Msg: "is not JSON: " + syntax.Error() + " at " + position(data, syntax.Offset)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &FieldError{Msg: "is not JSON: it ends too early, at " + position(data, int64(len(data)))}
	default:
		return &FieldError{Msg: "is not JSON: " + err.Error() + " at " + position(data, offset)}
	}
}

// position tells line and column of a byte offset.
func position(data []byte, offset int64) string {
	head := data[:max(0, min(int(offset), len(data)))]

	return fmt.Sprintf("line %d, column %d",
		bytes.Count(head, []byte("\n"))+1, len(head)-bytes.LastIndexByte(head, '\n')-1)
}

// nesting is the deepest level of brackets outside strings.
func nesting(data []byte) int {
	depth, deepest := 0, 0
	inString := false

	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}

	return deepest
}
