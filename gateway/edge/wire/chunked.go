package wire

import "github.com/sluice-gateway/sluice/internal/fault"

// Bounds of what a chunked body may carry besides its data.
const (
	maxSizeDigits  = 16
	maxExtensions  = 4 << 10
	maxTrailers    = 8 << 10
	freeOverhead   = 64 << 10
	overheadFactor = 8
)

type chunkState uint8

const (
	chunkSize      chunkState = iota // before or in the digits of a size
	chunkBlank                       // white space after the size
	chunkExtension                   // after ";"
	chunkSizeLF                      // CR after a size line was seen
	chunkData                        // inside data
	chunkDataCR                      // data complete
	chunkDataLF                      // CR after data was seen
	trailerStart                     // at the start of a trailer line
	trailerName                      // in its name
	trailerValue                     // in its value
	trailerLF                        // CR after its value was seen
	trailerEndLF                     // CR of the empty line was seen
	chunkDone
)

// ChunkReader takes a chunked body apart, byte by byte and strictly: only CR LF ends a line, extensions and
// trailers are checked, bounded and dropped. The zero value is ready for one body.
type ChunkReader struct {
	state      chunkState
	digits     int
	left       int64
	extensions int
	trailers   int
	overhead   int64
	data       int64
}

// Done reports that the body and its trailers were read to the end.
func (c *ChunkReader) Done() bool { return c.state == chunkDone }

// DataLeft is how many bytes of the present chunk follow right now, with nothing in between.
func (c *ChunkReader) DataLeft() int64 {
	if c.state != chunkData {
		return 0
	}

	return c.left
}

// Took tells that n bytes of data, at most DataLeft, were taken from the stream by the caller.
func (c *ChunkReader) Took(n int64) {
	c.left -= n
	c.data += n

	if c.left == 0 {
		c.state = chunkDataCR
	}
}

// Read moves data from src to dst. It returns how much of src was used and how much of dst was
// filled; it stops at the end of src, of dst, or of the body.
func (c *ChunkReader) Read(dst, src []byte) (used, filled int, _ *fault.Error) {
	for used < len(src) && c.state != chunkDone {
		if c.state == chunkData {
			if filled == len(dst) {
				break
			}

			n := copy(dst[filled:], src[used:min(int64(len(src)), int64(used)+c.left)])
			used += n
			filled += n
			c.Took(int64(n))

			continue
		}

		if err := c.step(src[used]); err != nil {
			return used, filled, err
		}

		used++
		c.overhead++
	}

	if c.overhead > freeOverhead+overheadFactor*c.data {
		return used, filled, errChunkOverhead
	}

	return used, filled, nil
}

// step takes one byte outside of data.
func (c *ChunkReader) step(b byte) *fault.Error {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkBlank, chunkExtension:
		return c.extension(b)
	case chunkSizeLF:
		return c.sizeEnd(b)
	case chunkDataCR:
		return c.expect(b, '\r', chunkDataLF)
	case chunkDataLF:
		c.digits = 0

		return c.expect(b, '\n', chunkSize)
	case trailerStart, trailerName, trailerValue, trailerLF, trailerEndLF:
		return c.trailer(b)
	case chunkData, chunkDone:
	}

	return nil
}

func (c *ChunkReader) expect(b, want byte, next chunkState) *fault.Error {
	if b != want {
		return errChunk
	}

	c.state = next

	return nil
}

func (c *ChunkReader) size(b byte) *fault.Error {
	if v := hexValue(b); v >= 0 {
		if c.digits++; c.digits > maxSizeDigits || c.left > (1<<62)>>4 {
			return errChunkSize
		}

		c.left = c.left<<4 | int64(v)

		return nil
	}

	if c.digits == 0 {
		return errChunkSize
	}

	switch b {
	case '\r':
		c.state = chunkSizeLF
	case ' ', '\t':
		c.state = chunkBlank
	case ';':
		c.state = chunkExtension
	default:
		return errChunkSize
	}

	return nil
}

func (c *ChunkReader) extension(b byte) *fault.Error {
	if c.extensions++; c.extensions > maxExtensions {
		return errChunkExtension
	}

	switch {
	case b == '\r':
		c.state = chunkSizeLF
	case b == ';':
		c.state = chunkExtension
	case b == ' ' || b == '\t':
	case c.state == chunkBlank, b < 0x20, b == 0x7f:
		return errChunkExtension
	}

	return nil
}

func (c *ChunkReader) sizeEnd(b byte) *fault.Error {
	next := chunkData
	if c.left == 0 {
		next = trailerStart
	}

	return c.expect(b, '\n', next)
}

func (c *ChunkReader) trailer(b byte) *fault.Error {
	if c.trailers++; c.trailers > maxTrailers {
		return errTrailer
	}

	switch c.state { //nolint:exhaustive // the states of trailers
	case trailerStart:
		switch {
		case b == '\r':
			c.state = trailerEndLF
		case class[b]&classToken != 0:
			c.state = trailerName
		default:
			return errTrailer
		}
	case trailerName:
		switch {
		case b == ':':
			c.state = trailerValue
		case class[b]&classToken == 0:
			return errTrailer
		}
	case trailerValue:
		switch {
		case b == '\r':
			c.state = trailerLF
		case b < 0x20 && b != '\t' || b == 0x7f:
			return errTrailer
		}
	case trailerLF:
		return c.expect(b, '\n', trailerStart)
	default:
		return c.expect(b, '\n', chunkDone)
	}

	return nil
}
