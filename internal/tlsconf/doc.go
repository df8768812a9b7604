// Package tlsconf makes server-side TLS configurations: a modern profile, certificates chosen by
// server name and reloaded without a restart, and a self-signed certificate when none is given.
//
// A Source owns its certificates. Its Config may be handed to any number of servers; they see a new
// certificate with the next handshake after it was loaded. Run watches the files.
package tlsconf
