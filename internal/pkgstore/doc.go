// Package pkgstore keeps model packages by the hash of their content.
//
// A package lives under <dir>/sha256/<tree hash>/ and never changes. Import copies a source
// into <dir>/tmp, hashing on the way, syncs it and renames it, so that an import that was
// cut off at any moment leaves nothing that looks complete; Clean removes such remains at
// the next start. Links and everything that is not a plain file are refused, and nothing
// outside the source is ever read, even when somebody exchanges parts of it meanwhile.
//
// A Store is safe for concurrent use. It holds no open files between calls.
package pkgstore
