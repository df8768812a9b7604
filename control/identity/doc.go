// Package identity is who there is and what they may do: domains, projects, users, access
// keys, roles and grants, tokens, and the first administrator.
//
// A Service answers the IAM part of the REST API (Routes), authenticates and authorises every
// request of the control API (it is the web.Gatekeeper), and owns the keys that sign tokens.
// It keeps a compiled auth.Directory that follows the store; a change made through this very
// Service is in the Directory before the change is answered.
//
// Open reads what is needed and creates the first administrator; Run follows the store and
// rotates keys until its context ends. All methods are safe for concurrent use.
package identity
