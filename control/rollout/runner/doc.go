// Package runner carries out what rollout.Step decides.
//
// Runner watches services and models, steps each service whenever something that concerns
// it changed (one worker at a time per service), writes the records, and then starts,
// drains and kills instances through a launcher and probes them. It is the only writer of
// service states and instances; each write of a state is conditional on the revision that
// was read, which keeps a leader of the past from undoing what its successor did. Every
// action can be repeated, and a record without its process (or the reverse) is put right
// by the next step. So a crash between writing and acting neither loses an instance nor
// doubles one.
//
// Run owns the workers and the probes. Processes belong to the launcher and outlive Run:
// Shutdown ends them, Release gives them up, another Run takes them over. Election decides
// which of several control processes runs.
package runner
