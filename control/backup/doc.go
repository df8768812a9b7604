// Package backup writes the whole of a platform into one archive and makes a data directory
// of it again.
//
// An archive is a gzip-compressed tar:
//
//	manifest.json                    what is in the rest, with sizes and SHA-256
//	state.jsonl                      the keys of the state, one JSON object a line, at one revision
//	packages/sha256/<tree>/<path>    the files of the published models
//	keyring, bootstrap.json          only on request: they open the secrets
//
// Write makes one, Verify reads one to its end and compares it with its manifest, Restore does
// the same and leaves a data directory. Nothing here keeps state; all functions are safe for
// concurrent use on different archives and directories.
package backup
