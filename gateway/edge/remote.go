package edge

import (
	"bytes"
	"net/netip"
)

// client is who sent the request: the peer, or, when the peer is a trusted proxy, the last
// address in X-Forwarded-For that is not one.
func (e *Edge) client(peer netip.AddrPort, h *head) netip.AddrPort {
	if len(e.trusted) == 0 || !e.trusts(peer.Addr()) {
		return peer
	}

	client := peer

	// Several fields are one list, so the last field is looked at first.
	for i := h.Count() - 1; i >= 0; i-- {
		name, value := h.Field(i)
		if !bytes.EqualFold(name, []byte("x-forwarded-for")) {
			continue
		}

		for len(value) > 0 {
			at := bytes.LastIndexByte(value, ',')
			addr, err := netip.ParseAddr(string(bytes.TrimSpace(value[at+1:])))
			if err != nil {
				return client
			}

			client = netip.AddrPortFrom(addr.Unmap(), 0)
			if !e.trusts(client.Addr()) {
				return client
			}

			value = value[:max(at, 0)]
		}
	}

	return client
}

func (e *Edge) trusts(a netip.Addr) bool {
	for _, p := range e.trusted {
		if p.Contains(a) {
			return true
		}
	}

	return false
}
