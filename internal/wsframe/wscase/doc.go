// Package wscase has the conversations that a WebSocket server must survive, group by group as Autobahn's test
// suite lists them: frames of all sizes, pings and pongs, reserved bits and opcodes, fragmentation, UTF-8, close
// frames, and large messages. A Case is bytes to send and what must come back; Talk holds one over a connection
// whose handshake is done. The tests of the relay and of our own runtime share it.
package wscase
