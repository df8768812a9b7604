// Package sign is the request signature of AK/SK and APP authentication: the canonical
// request, the string to sign and the HMAC, for the side that signs and the side that checks.
//
// It knows SDK-HMAC-SHA256, SDK-HMAC-SM3 and V11-HMAC-SHA256 (derived keys). The canonical
// form is computed from what travels: the raw path, the raw query and the header values.
//
//   - Signer signs an *http.Request. It is a plain value.
//   - Prepared is a Signer with its key schedule done, for callers that sign much; it is
//     immutable and safe for concurrent use.
//   - Builder owns the buffers. It is reused and belongs to one goroutine at a time; the
//     slices that it returns live until its next call.
//   - Key is a secret made ready for HMAC; immutable, prints as [redacted].
package sign
