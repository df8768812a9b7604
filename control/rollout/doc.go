// Package rollout decides which instances of a service should exist.
//
// Step is a pure function: from the service that users want, the records of its instances
// and what was observed of them, it computes the next records and the actions that follow
// from them. It reads no clock, starts nothing and knows no store; scenarios in testdata
// describe it. Split, as pure, divides the traffic between the versions of a service while
// instances come and go. Package runner surrounds Step with the store, a launcher and probes.
//
// Words: a lane is one entry of the target together with what it replaces; fresh
// instances are made from the target's template, old ones from an earlier one.
package rollout
