package edge

import (
	"math/bits"
	"sync"
)

// Sizes of pooled bodies: powers of two from 4 KiB to 1 MiB. Larger ones are left to the garbage
// collector, so that a burst of large requests does not stay in memory.
const (
	minBodyShift = 12
	maxBodyShift = 20
)

// bodyPool keeps buffers for request bodies by size class.
type bodyPool struct {
	classes [maxBodyShift - minBodyShift + 1]sync.Pool
}

// get returns an empty buffer with at least size bytes of capacity.
func (p *bodyPool) get(size int) *[]byte {
	shift := max(minBodyShift, bits.Len(uint(max(size, 1)-1)))
	if shift > maxBodyShift {
		b := make([]byte, 0, size)

		return &b
	}

	if b, ok := p.classes[shift-minBodyShift].Get().(*[]byte); ok {
		return b
	}

	b := make([]byte, 0, 1<<shift)

	return &b
}

func (p *bodyPool) put(b *[]byte) {
	shift := bits.Len(uint(cap(*b))) - 1
	if cap(*b) != 1<<shift || shift < minBodyShift || shift > maxBodyShift {
		return
	}

	*b = (*b)[:0]
	p.classes[shift-minBodyShift].Put(b)
}
