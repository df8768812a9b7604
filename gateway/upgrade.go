package gateway

import (
	"net"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/router/pool"
)

// Upgrade is the wish of a call to become a WebSocket, and what came of it. The call walks through
// the same rooms as any other; when the engine agrees nothing is written to Out, and the door
// has the engine's connection and the right to it, which it gives back with Settle.
type Upgrade struct {
	// Admit, if set, is asked before an instance is chosen; it refuses with a fault.
	Admit func(serviceID string) error

	// Filled by the forwarder when the engine agreed; Conn is nil otherwise. Socket is the connection
	// below TLS. Early is what the engine sent behind its answer.
	Conn, Socket net.Conn
	Early        []byte
	// Protocol and Extensions are the engine's choices, empty if there are none.
	Protocol, Extensions string
	Deflate              wsframe.Deflate

	// MaxMessage is the service's own limit on bodies, if it sets one; filled by the corridor.
	MaxMessage int64

	lease  pool.Lease
	ticket limit.Ticket
}

var errNoWebSocket = fault.New(fault.WebSocketOff, "")

// Settle gives back the instance and the slot, once, when the WebSocket is over. o is what
// its end says about the instance.
func (u *Upgrade) Settle(o pool.Outcome) {
	if !u.lease.Held() {
		return
	}

	// An instance that is leaving is allowed to hang up.
	if u.lease.Endpoint().Leaving() && o != pool.OK {
		o = pool.Neutral
	}

	u.lease.Done(o)
	u.ticket.Release()
}

// lift hands what the walk holds to the upgrade, for as long as the WebSocket lives.
func (w *walk) lift() {
	u := w.call.Upgrade

	w.lease.Lengthen(&u.lease)
	u.ticket, w.ticket = w.ticket, limit.Ticket{}

	w.call.Record.Outcome = Served
	w.service.MarkAble(w.call.Start)
}
