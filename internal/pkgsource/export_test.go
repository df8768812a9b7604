package pkgsource

import "context"

// For tests of what needs addresses and certificates that no test has.
var (
	CheckRedirect = checkRedirect
	Permitted     = permitted
	Unpack        = func(ctx context.Context, archive, dir string, bytes int64, files int) error {
		return unpack(ctx, archive, dir, limits{name: "x", bytes: bytes, files: files})
	}
)
