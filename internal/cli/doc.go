// Package cli holds the client verbs of the sluice command: model, service, token and the rest
// call the REST API of the control process and the edge, as any other client would.
//
// New returns cobra commands for cmd/sluice to mount. Commands write to the command's own
// output streams, take their context from the command, and return errors in one line.
package cli
