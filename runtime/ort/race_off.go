//go:build !race

package ort

// poisoned overwrites the memory of outputs that were released, to find who still reads it.
const poisoned = false
