package procs

import (
	"time"

	"golang.org/x/sys/unix"
)

// spent is what the process has used, and how often a processor was taken from it.
func spent() (cpu time.Duration, robbed uint64) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0, 0
	}

	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), uint64(r.Nivcsw)
}
