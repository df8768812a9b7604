//go:build race

package pool

const doneTwicePanics = true
