// Package version says which build is running.
package version

import (
	"runtime/debug"
	"strings"
)

// stamp is set by the Makefile: -ldflags "-X github.com/sluice-gateway/sluice/internal/version.stamp=v1.2.3".
var stamp string //nolint:gochecknoglobals // the linker can set only a package variable

// String is the stamped version, or what the Go toolchain recorded, or "dev".
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = nil
	}

	return describe(stamp, info)
}

func describe(stamped string, info *debug.BuildInfo) string {
	if s := strings.TrimSpace(stamped); s != "" {
		return s
	}

	if info == nil {
		return "dev"
	}

	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}

	revision, dirty := "", ""

	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}

	const short = 12

	if revision == "" {
		return "dev"
	}

	return revision[:min(short, len(revision))] + dirty
}
