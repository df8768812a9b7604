package request

import (
	"net/http"
	"time"
)

// Head returns a function that appends the request line and the fields of the first item, signed if it is to be,
// without the blank line at the end: the opening of a WebSocket. It is safe for concurrent use.
func (m *Mix) Head(seed uint64) func(dst []byte) []byte {
	return func(dst []byte) []byte {
		s := m.Source(0, seed)
		s.values.wall = time.Now()

		c := m.items[0]
		c.Method, c.method, c.body = http.MethodGet, []byte(http.MethodGet), Template{}
		dst = s.render(dst, &c, &s.values)

		return dst[:len(dst)-len("\r\n")]
	}
}

// Once returns one whole request of each item, for a look at the target before the load.
func (m *Mix) Once(seed uint64) [][]byte {
	out := make([][]byte, len(m.items))

	for i := range m.items {
		s := m.Source(0, seed)
		s.values.wall = time.Now()
		out[i] = s.render(nil, &m.items[i], &s.values)
	}

	return out
}
