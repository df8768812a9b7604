// Package command is "sluice loadtest": flags, the look at the target before any load, the modes, the files.
//
// New returns the cobra command. Errors are of three kinds, for the exit status: *UsageError for flags that make
// no sense, ErrMissed for an SLO that was not held, and everything else.
package command
