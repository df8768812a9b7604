package wsframe

import (
	"bytes"
	"errors"
	"strconv"
)

// DeflateName is the extension of RFC 7692, the only one that is negotiated.
const DeflateName = "permessage-deflate"

// Deflate is what both ends agreed on for compressed messages.
type Deflate struct {
	On bool
	// ClientReset and ServerReset: that side starts every message with an empty window.
	ClientReset, ServerReset bool
}

// ErrExtension says that an answer names extensions that were not offered, or in a wrong form.
var ErrExtension = errors.New("websocket: the extensions of the answer do not fit the offer")

// Offers is what a client offers for compression. Extensions of other names are left out, because
// a relay that does not know them could not judge their frames.
type Offers struct {
	list []byte
	// window: an offer allows the server to bound the client's window.
	window bool
}

// Add reads one Sec-WebSocket-Extensions line of a client. Offers that it cannot read are left out,
// as the protocol asks for.
func (o *Offers) Add(line []byte) {
	for offer := range bytes.SplitSeq(line, []byte{','}) {
		p, ok := parseDeflate(offer, true)
		if !ok {
			continue
		}

		if len(o.list) > 0 {
			o.list = append(o.list, ", "...)
		}

		o.list = append(o.list, bytes.Trim(offer, " \t")...)
		o.window = o.window || p.clientBits
	}
}

// OffersWholeWindow reports whether a Sec-WebSocket-Extensions line of a client has an offer that a server may
// accept which cannot make its own window smaller.
func OffersWholeWindow(line []byte) bool {
	for offer := range bytes.SplitSeq(line, []byte{','}) {
		if p, ok := parseDeflate(offer, true); ok && !p.serverBits {
			return true
		}
	}

	return false
}

// Line is the offers for the engine, empty if there are none.
func (o *Offers) Line() []byte { return o.list }

// Judge reads the Sec-WebSocket-Extensions of an answer to these offers.
func (o *Offers) Judge(answer []byte) (Deflate, error) {
	if len(bytes.Trim(answer, " \t")) == 0 {
		return Deflate{}, nil
	}

	p, ok := parseDeflate(answer, false)
	if !ok || len(o.list) == 0 || p.clientBits && !o.window {
		return Deflate{}, ErrExtension
	}

	return Deflate{On: true, ClientReset: p.clientReset, ServerReset: p.serverReset}, nil
}

// deflateParams are the parameters that one offer or answer has.
type deflateParams struct{ clientReset, serverReset, clientBits, serverBits bool }

// parseDeflate reads one element of the header. In an offer, client_max_window_bits may stand without a value.
func parseDeflate(b []byte, offer bool) (p deflateParams, ok bool) {
	first := true

	for part := range bytes.SplitSeq(b, []byte{';'}) {
		name, value, valued := bytes.Cut(part, []byte{'='})
		name = bytes.Trim(name, " \t")
		value = bytes.Trim(value, " \t")

		if first {
			if first = false; valued || !bytes.EqualFold(name, []byte(DeflateName)) {
				return p, false
			}

			continue
		}

		var seen *bool

		switch string(bytes.ToLower(name)) {
		case "client_no_context_takeover":
			seen, ok = &p.clientReset, !valued
		case "server_no_context_takeover":
			seen, ok = &p.serverReset, !valued
		case "client_max_window_bits":
			seen, ok = &p.clientBits, windowBits(value) || offer && !valued
		case "server_max_window_bits":
			seen, ok = &p.serverBits, windowBits(value)
		default:
			return p, false
		}

		if !ok || *seen {
			return p, false
		}

		*seen = true
	}

	return p, true
}

// windowBits reports whether a parameter is a window size, which may be quoted.
func windowBits(v []byte) bool {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}

	n, err := strconv.Atoi(string(v))

	return err == nil && n >= 8 && n <= 15 && v[0] != '0' && v[0] != '+'
}
