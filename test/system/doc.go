// Package system holds tests of the whole: they build the real binaries, start them on
// free ports with an empty data directory, and call them as a user would.
package system
