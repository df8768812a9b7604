package wsframe

// Checker judges one direction of a connection, frame by frame and piece by piece. Set Masked
// to what the frames have to be, Deflate if RSV1 was negotiated.
type Checker struct {
	Masked  bool
	Deflate bool
	// MaxMessage bounds the payload of a message as it is on the wire; 0 is no bound.
	MaxMessage int64

	open, text, packed bool
	size               int64
	utf8               UTF8
}

// Frame judges a head in the light of what came before.
func (c *Checker) Frame(h *Header) *Violation {
	if h.Masked != c.Masked {
		if c.Masked {
			return errClear
		}

		return errMasked
	}

	if h.RSV != 0 && (h.RSV != RSV1 || !c.Deflate || h.Op.Control() || h.Op == OpContinuation) {
		return errRSV
	}

	if h.Op.Control() {
		return nil
	}

	switch {
	case h.Op == OpContinuation && !c.open:
		return errNoStart
	case h.Op != OpContinuation && c.open:
		return errStarted
	case h.Op != OpContinuation:
		c.open, c.text, c.packed = true, h.Op == OpText, h.RSV != 0
		c.size, c.utf8 = 0, UTF8{}
	}

	// Without a sum that could overflow.
	if c.MaxMessage > 0 && h.Length > c.MaxMessage-c.size {
		return errTooBig
	}

	c.size += h.Length

	return nil
}

// Packed reports whether the message under way is compressed.
func (c *Checker) Packed() bool { return c.packed }

// Text reports whether the message under way is text.
func (c *Checker) Text() bool { return c.text }

// Open reports whether a message is under way.
func (c *Checker) Open() bool { return c.open }

// Payload judges bytes of a data frame, which start at offset in it and are masked with key.
// Those of a compressed message are not looked at: Plain takes them when they are unpacked.
func (c *Checker) Payload(b []byte, key [4]byte, offset int64) *Violation {
	if !c.text || c.packed || c.utf8.Write(b, key, offset) {
		return nil
	}

	return errUTF8
}

// Plain judges what a compressed message unpacks to, piece by piece.
func (c *Checker) Plain(b []byte) *Violation {
	if !c.text || c.utf8.Write(b, [4]byte{}, 0) {
		return nil
	}

	return errUTF8
}

// End is called behind the last byte of a data frame. done tells that the message is complete.
func (c *Checker) End(h *Header) (done bool, err *Violation) {
	if !h.Fin {
		return false, nil
	}

	c.open = false

	if c.text && !c.utf8.Complete() {
		return true, errUTF8
	}

	return true, nil
}
