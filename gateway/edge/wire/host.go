package wire

import (
	"bytes"
	"net/netip"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
)

const (
	maxHost = 255
	maxPort = 65535
)

func (h *Head) host(value []byte) *fault.Error {
	if h.seen&seenHost != 0 {
		return errHostTwice
	}

	h.seen |= seenHost

	if err := checkHost(value); err != nil {
		return err
	}

	h.Host = value

	return nil
}

// checkHost takes a registered name, an IPv4 or a bracketed IPv6 address, with an optional port.
func checkHost(b []byte) *fault.Error {
	if len(b) == 0 || len(b) > maxHost {
		return errHost
	}

	if b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 || !ipv6(b[1:end]) {
			return errHost
		}

		if rest := b[end+1:]; len(rest) > 0 {
			if rest[0] != ':' || !validPort(rest[1:]) {
				return errHost
			}
		}

		return nil
	}

	name, port, hasPort := bytes.Cut(b, []byte{':'})
	if hasPort && !validPort(port) || !validName(name) {
		return errHost
	}

	return nil
}

// validName wants letters, digits, "-" and "_" in labels that are not empty; one dot may end the name.
func validName(name []byte) bool {
	if len(name) == 0 || name[0] == '.' {
		return false
	}

	dot := false

	for _, b := range name {
		if class[b]&classHost == 0 || b == '.' && dot {
			return false
		}

		dot = b == '.'
	}

	return true
}

func validPort(p []byte) bool {
	if len(p) == 0 || len(p) > 5 {
		return false
	}

	n := 0

	for _, b := range p {
		if class[b]&classDigit == 0 {
			return false
		}

		n = n*10 + int(b-'0')
	}

	return n >= 1 && n <= maxPort
}

func ipv6(b []byte) bool {
	for _, c := range b {
		if class[c]&classHex == 0 && c != ':' && c != '.' {
			return false
		}
	}

	if len(b) == 0 {
		return false
	}

	// The string does not outlive the call: without a zone netip keeps nothing of it.
	addr, err := netip.ParseAddr(unsafe.String(&b[0], len(b)))

	return err == nil && addr.Is6()
}
