package auth

import (
	"strings"

	"github.com/sluice-gateway/sluice/spec"
)

// AuthSet is a set of ways of authenticating.
//
//nolint:revive // auth.Set would not tell a set of what
type AuthSet uint8

// Members of an AuthSet.
const (
	AllowToken AuthSet = 1 << iota
	AllowAKSK
	AllowApp
	AllowNone

	// AllowDefault is what a service accepts that does not say.
	AllowDefault = AllowToken | AllowAKSK | AllowApp
)

// ParseAuthSet reads the auth_types of a service. An empty list means AllowDefault; words that
// are unknown allow nothing.
func ParseAuthSet(types []spec.AuthType) AuthSet {
	if len(types) == 0 {
		return AllowDefault
	}

	var s AuthSet

	for _, t := range types {
		switch t {
		case spec.AuthToken:
			s |= AllowToken
		case spec.AuthAKSK:
			s |= AllowAKSK
		case spec.AuthApp:
			s |= AllowApp
		case spec.AuthNone:
			s |= AllowNone
		}
	}

	return s
}

// Has reports whether s and t have a member in common.
func (s AuthSet) Has(t AuthSet) bool { return s&t != 0 }

// String lists the members, as in auth_types.
func (s AuthSet) String() string {
	var names []string

	for _, m := range []struct {
		set  AuthSet
		name spec.AuthType
	}{{AllowToken, spec.AuthToken}, {AllowAKSK, spec.AuthAKSK}, {AllowApp, spec.AuthApp}, {AllowNone, spec.AuthNone}} {
		if s.Has(m.set) {
			names = append(names, string(m.name))
		}
	}

	return strings.Join(names, ",")
}
