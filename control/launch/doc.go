// Package launch starts and stops the processes that serve models on this machine.
//
// Local owns every process that it started, from Start until the one call of
// Task.Notify with PhaseEnded. A process lives in a process group of its own and never
// outlives this process: workers read a pipe whose write end only we hold and end at
// its EOF; custom engines run below Supervise, which does the same on their behalf.
//
// Notify is called from one goroutine per task, in order, never after PhaseEnded, and
// must not call back into Local.Shutdown or Close. Close (or Shutdown) ends everything
// and returns when no process and no goroutine of Local is left.
package launch
