// Package peer makes the certificates by which gateways, control processes and workers know each other on TCP.
//
// They come from an authority that every process with the key ring derives for itself, one for each key of
// the ring: nothing has to be handed out, kept on disk or renewed by hand, and whoever has no key ring is
// refused. A worker gets a certificate of its own, for one instance and for being a server only, so that it
// can pose neither as another instance nor as a gateway. Gateways and control processes make theirs when they
// need one, for a day.
//
// An Authority is safe for concurrent use.
package peer
