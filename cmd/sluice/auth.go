package main

import (
	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/config"
)

// authSettings are about credentials, at the edge and at the management API.
type authSettings struct {
	// ClockSkew is how far the date of a signature may be from now.
	ClockSkew config.Duration `yaml:"clock_skew"`
	// SignedBody is how large a body under a signature may be.
	SignedBody config.ByteSize `yaml:"signed_body"`
	// UnprovenBodies is the memory of all signed bodies whose signature is not checked yet; 0 is no bound.
	UnprovenBodies config.ByteSize `yaml:"unproven_bodies"`
	// TokenCache is how many verified tokens are remembered.
	TokenCache int          `yaml:"token_cache"`
	Lock       lockSettings `yaml:"lock"`
	// ReplayCache is how many used signatures the edge remembers and refuses; 0 is off.
	ReplayCache int `yaml:"replay_cache"`
	// PlainAppCodes takes app codes and app keys over plain HTTP, for a network that is trusted.
	PlainAppCodes bool `yaml:"plain_app_codes"`
	// AppKeys takes an app key alone, without signature or code.
	AppKeys bool `yaml:"app_keys"`
}

// lockSettings are when bad signatures lock a key, for the address that they came from.
type lockSettings struct {
	After int             `yaml:"after"`
	For   config.Duration `yaml:"for"`
	// IPv4Prefix and IPv6Prefix are how many bits of an address are one source.
	IPv4Prefix int `yaml:"ipv4_prefix"`
	IPv6Prefix int `yaml:"ipv6_prefix"`
	// Entries bounds the table.
	Entries int `yaml:"entries"`
}

func defaultAuth() authSettings {
	c := auth.Config{}.Defaults()

	return authSettings{
		ClockSkew: config.Duration(c.Skew), SignedBody: config.ByteSize(c.MaxSignedBody), UnprovenBodies: config.ByteSize(gateway.Config{}.Defaults().UnprovenBytes), TokenCache: c.TokenCache, AppKeys: true,
		Lock: lockSettings{
			After: c.LockAfter, For: config.Duration(c.LockFor), IPv4Prefix: c.LockPrefix4, IPv6Prefix: c.LockPrefix6, Entries: c.LockEntries,
		},
	}
}

// corridor completes the configuration of the corridor.
func (a *authSettings) corridor(c gateway.Config) gateway.Config {
	c.SignedBytes, c.UnprovenBytes = int64(a.SignedBody), int64(a.UnprovenBodies)
	if c.UnprovenBytes == 0 {
		c.UnprovenBytes = -1
	}

	return c
}

// edge is the configuration of the verifier of the edge.
func (a *authSettings) edge() auth.Config {
	c := a.control()
	c.ReplayEntries, c.PlainAppCodes, c.RefuseAppKeys = a.ReplayCache, a.PlainAppCodes, !a.AppKeys

	return c
}

// control is the configuration of the verifier of the management API, which knows no apps.
func (a *authSettings) control() auth.Config {
	return auth.Config{
		TokenCache: a.TokenCache, Skew: a.ClockSkew.D(), MaxSignedBody: int64(a.SignedBody),
		LockAfter: a.Lock.After, LockFor: a.Lock.For.D(), LockPrefix4: a.Lock.IPv4Prefix, LockPrefix6: a.Lock.IPv6Prefix,
		LockEntries: a.Lock.Entries,
	}
}

// validate checks what the package would refuse, and what it would take for a default.
func (a *authSettings) validate() error {
	for _, n := range []struct {
		path string
		zero bool
	}{
		{"clock_skew", a.ClockSkew == 0},
		{"signed_body", a.SignedBody == 0},
		{"token_cache", a.TokenCache == 0},
		{"lock.after", a.Lock.After == 0},
		{"lock.for", a.Lock.For == 0},
		{"lock.ipv4_prefix", a.Lock.IPv4Prefix == 0},
		{"lock.ipv6_prefix", a.Lock.IPv6Prefix == 0},
		{"lock.entries", a.Lock.Entries == 0},
	} {
		if n.zero {
			return config.At(n.path, "must be more than 0")
		}
	}

	if a.UnprovenBodies > 0 && a.UnprovenBodies < 2*a.SignedBody {
		return config.At("unproven_bodies", "must hold two bodies of signed_body")
	}

	return a.edge().Validate() //nolint:wrapcheck // prefixed by the caller
}
