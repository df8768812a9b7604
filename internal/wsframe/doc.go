// Package wsframe has the rules of the WebSocket protocol (RFC 6455) as far as a relay and an
// endpoint share them: heads of frames, the state of a message that arrives in pieces, UTF-8
// across frames, close codes, and the arithmetic of the handshake.
//
// Nothing here reads from a connection or keeps a payload: whoever owns the bytes hands them
// over as they arrive. Checker and UTF8 belong to one direction of one connection and are not
// safe for concurrent use; everything else is pure.
package wsframe
