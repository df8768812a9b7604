package spec

import (
	"bytes"
	"fmt"
	"strconv"
)

// Int is an integer that JSON may give as a number or as a numeric string, as the v1 API does.
type Int int

// UnmarshalJSON implements json.Unmarshaler.
func (i *Int) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	if text == "" || text == "null" {
		return nil
	}

	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%s is not an integer", b)
	}

	*i = Int(n)

	return nil
}
