// Package procs gives Go's scheduler as many slots (GOMAXPROCS) as the load needs, and no more.
//
// A process that waits most of the time, as a gateway and a worker with a small model do, pays for
// slots that have nothing to do: each time work arrives, an idle thread is woken to look for more, finds
// none and sleeps again. With one slot the same requests cost a quarter to a third less CPU, which the
// processes beside it can use. A slot too few costs latency instead, so that a Governor follows the
// load up at once and down slowly, and listens to how long goroutines wait.
package procs
