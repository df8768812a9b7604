// Package publish builds the snapshot that gateways follow.
//
// Publisher watches the state and keeps one immutable spec.Snapshot up to date. Only
// what changed is built again: routes that did not change keep their value and revision, so that
// one instance more or less costs little among ten thousand services. Changes that
// come within a few milliseconds make one snapshot. Next hands out the newest; any number of gateways may wait in it.
//
// A snapshot's revision is taken from etcd's, which never goes back, with a few bits below
// for what is known here before it is written: that an instance is gone.
package publish
