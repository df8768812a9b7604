// Package store keeps the desired and the observed state of the platform in etcd.
//
// Documents are JSON values under /sluice/v1/<kind>/<id>, each in an envelope with the
// version of its schema. A Collection gives typed access to one kind; a Journal is a
// bounded log per object (the events of a service). Several documents change together
// through Store.Commit, where index keys keep names unique.
//
// A write that returned nil is on disk: etcd syncs its log before it answers. Embedded
// runs one etcd member inside the process, without any listener; New works the same on a
// client of an external cluster.
//
// A Store and its collections hold no state and are safe for concurrent use. The caller of
// StartEmbedded owns the Embedded and closes it after everything that uses its client.
package store
