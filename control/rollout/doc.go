// Package rollout decides which instances of a service should exist, and makes it so.
//
// Step is a pure function: from the service that users want, the records of its instances
// and what was observed of them, it computes the next records and the actions that follow
// from them. It reads no clock, starts nothing and knows no store; scenarios in testdata
// describe it. Split, as pure, divides the traffic between the versions of a service while
// instances come and go.
//
// Runner surrounds Step with the store, a launcher and probes. It writes the records first
// and acts afterwards; every action can be repeated, and a record without its process (or
// the reverse) is put right by the next step. So a crash between the two neither loses
// an instance nor doubles one. Runner is the only writer of service states and instances;
// each write of a state is conditional on the revision that was read, which keeps a
// leader of the past from undoing what its successor did.
//
// Words: a lane is one entry of the target together with what it replaces; fresh
// instances are made from the target's template, old ones from an earlier one.
package rollout
