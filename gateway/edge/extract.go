package edge

import "github.com/sluice-gateway/sluice/gateway/edge/wire"

// What fasthttp has to know of a request to serve the connection and to frame the answer is in the
// request line, but for the target, and in Connection. The extract of a head says that, in a head of the same
// meaning; everything else was read by the guard and is read from there.

// extracts are made once, by method, then whether the client speaks HTTP/1.0, then whether it closes.
var extracts = makeExtracts() //nolint:gochecknoglobals // a constant table

func makeExtracts() map[string]*[2][2]string {
	all := make(map[string]*[2][2]string)

	for _, method := range []string{"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		begin := method + " / HTTP/1."
		all[method] = &[2][2]string{
			{begin + "1\r\nHost: h\r\n\r\n", begin + "1\r\nHost: h\r\nConnection: close\r\n\r\n"},
			{begin + "0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", begin + "0\r\nHost: h\r\n\r\n"},
		}
	}

	return all
}

// extract is what fasthttp gets of a head that the guard let in.
func extract(h *wire.Head) string {
	e := extracts[string(h.Method)]
	if e == nil {
		panic("BUG: the guard let a method in that the door does not know")
	}

	old, last := 0, 0
	if h.HTTP10 {
		old = 1
	}

	if h.Close {
		last = 1
	}

	return e[old][last]
}
