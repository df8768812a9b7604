// Package auth turns the credentials of a request into a Principal and tells what it may do.
//
// # Objects
//
//   - Directory is the compiled, immutable form of the users, keys, apps, grants and
//     revocations of one snapshot. Compile builds it off the request path, sharing with the
//     Directory before it whatever did not change; the gateway swaps it with its plan.
//   - Verifier holds what outlives a snapshot: the cache of verified tokens, the lockout table
//     and the replay cache, all bounded. It starts no goroutine and needs no Close. Each process
//     (or door) owns one; it is safe for concurrent use, also with several Directories at once.
//   - Principal is who calls. Immutable.
//
// # Which credential counts
//
// In this order: X-Auth-Token, Authorization (only the signing schemes; the access key decides
// whether it is a user's or an app's), X-Apig-AppCode, apikey. The first one of a kind that the
// service accepts is verified, and its verdict is final: an invalid credential never falls
// through to the next. A request whose credentials are all of kinds that the service does not
// accept gets AuthTypeNotAllowed. A service that accepts NONE takes requests without credentials;
// credentials of kinds that it does not list are then ignored, those of kinds that it lists are
// verified and must be valid.
//
// # Sealed secrets
//
// Secrets in a snapshot are sealed with a context, so that a sealed text cannot be moved to
// another credential: "ak:" and the access key for secret keys, "app:" and the app id for app
// secrets, "code:" and the app id for app codes (see SecretKeyContext and its siblings). The
// gateway never opens app codes; it compares their SHA-256.
//
// # Rights
//
// A user has no right until granted. Grants name a project, or "*" for every project of the
// user's domain, and a role or statements. A Deny wins over every Allow and over roles. Apps have
// no rights but the grants that services give them, and only for prediction.
package auth

// Contexts of sealed secrets.
const (
	secretKeyPrefix = "ak:"
	appSecretPrefix = "app:"
	appCodePrefix   = "code:"
)

// SecretKeyContext is the context of the sealed secret of an access key.
func SecretKeyContext(accessKey string) string { return secretKeyPrefix + accessKey }

// AppSecretContext is the context of the sealed secret of an app.
func AppSecretContext(appID string) string { return appSecretPrefix + appID }

// AppCodeContext is the context of a sealed code of an app.
func AppCodeContext(appID string) string { return appCodePrefix + appID }
