package pkgsource

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

var errAddress = errors.New("the address is not permitted")

// lookup lists of networks that are no public hosts.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this network
		netip.MustParsePrefix("100.64.0.0/10"),   // carriers' NAT
		netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("240.0.0.0/4"),     // reserved
		netip.MustParsePrefix("::/96"),           // IPv4-compatible
		netip.MustParsePrefix("100::/64"),        // discard
		netip.MustParsePrefix("2001::/23"),       // protocol assignments, Teredo
		netip.MustParsePrefix("2001:db8::/32"),   // documentation
		netip.MustParsePrefix("fec0::/10"),       // site-local
	}
}

// metadata are services of clouds that are not link-local.
func metadata() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("168.63.129.16"),
	}
}

// guard is asked with the address that is about to be dialled, so that it does not matter
// what a name resolved to before.
func guard(allowPrivate bool) func(network, address string, _ syscall.RawConn) error { //nolint:revive // it is a setting
	return func(network, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return fmt.Errorf("%w: %s %s", errAddress, network, address)
		}

		if !permitted(ap.Addr(), allowPrivate) {
			return fmt.Errorf("%w: %s", errAddress, ap.Addr())
		}

		return nil
	}
}

func permitted(a netip.Addr, allowPrivate bool) bool { //nolint:revive // it is a setting
	a = inner(a.WithZone(""))

	switch {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false
	}

	if slices.Contains(metadata(), a) {
		return false
	}

	if allowPrivate {
		return true
	}

	if a.IsLoopback() || a.IsPrivate() {
		return false
	}

	for _, p := range special() {
		if p.Contains(a) {
			return false
		}
	}

	return true
}

// inner is the IPv4 address that an IPv6 address stands for, if it does.
func inner(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() {
		return a
	}

	b := a.As16()

	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a): // NAT64
		return netip.AddrFrom4([4]byte(b[12:16]))
	case netip.MustParsePrefix("2002::/16").Contains(a): // 6to4
		return netip.AddrFrom4([4]byte(b[2:6]))
	default:
		return a
	}
}
