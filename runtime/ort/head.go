package ort

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// head is what a model file declares of its inputs and outputs, read without the rest. It
// tells what the binding does not: the names of dimensions, before anything is loaded.
type head struct {
	values map[string]declared
}

type declared struct {
	elem    int
	symbols []string
}

// maxDeclared bounds the description of one input or output; maxValues their number.
const (
	maxDeclared = 1 << 20
	maxValues   = 1 << 16
)

// Fields of ModelProto, GraphProto and ValueInfoProto.
const (
	modelGraph  = 7
	graphInput  = 11
	graphOutput = 12
)

var errHead = errors.New("not a model in ONNX's own format")

// readHead gives an empty head for a file that it cannot read: ONNX Runtime tells what is
// wrong with it, or knows another format.
func readHead(path string) *head {
	f, err := os.Open(path)
	if err != nil {
		return &head{}
	}
	defer f.Close() //nolint:errcheck // only read

	st, err := f.Stat()
	if err != nil {
		return &head{}
	}

	h, err := parseHead(f, st.Size())
	if err != nil {
		return &head{}
	}

	return h
}

// shimmed reports whether something declared is of a type that the binding cannot carry.
func (h *head) shimmed() bool {
	for _, v := range h.values {
		if narrow(dataType(v.elem)) {
			return true
		}
	}

	return false
}

// symbols gives the names of the dimensions of a value, or nil where none has a name.
func (h *head) symbols(name string, rank int) []string {
	s := h.values[name].symbols
	if len(s) != rank || !slices.ContainsFunc(s, func(v string) bool { return v != "" }) {
		return nil
	}

	return s
}

// scanner reads fields of a message in a file and skips what is not wanted.
type scanner struct {
	src io.ReadSeeker
	buf *bufio.Reader
	pos int64
}

func parseHead(src io.ReadSeeker, size int64) (*head, error) {
	s := &scanner{src: src, buf: bufio.NewReaderSize(src, 1<<15)}
	h := &head{values: map[string]declared{}}

	for s.pos < size {
		num, length, err := s.field(size)
		if err != nil {
			return nil, err
		}

		if num != modelGraph {
			if err := s.skip(length); err != nil {
				return nil, err
			}

			continue
		}

		if err := s.graph(s.pos+length, h); err != nil {
			return nil, err
		}
	}

	return h, nil
}

func (s *scanner) graph(end int64, h *head) error {
	for s.pos < end {
		num, length, err := s.field(end)
		if err != nil {
			return err
		}

		if num != graphInput && num != graphOutput {
			if err := s.skip(length); err != nil {
				return err
			}

			continue
		}

		if length > maxDeclared || len(h.values) >= maxValues {
			return errHead
		}

		b := make([]byte, length)
		if _, err := io.ReadFull(s.buf, b); err != nil {
			return fmt.Errorf("read a value: %w", err)
		}

		s.pos += length

		if err := h.add(b); err != nil {
			return err
		}
	}

	return nil
}

// field reads the start of a field; length bytes of it are left to read or skip.
func (s *scanner) field(end int64) (num protowire.Number, length int64, err error) {
	tag, err := s.varint()
	if err != nil {
		return 0, 0, err
	}

	num, typ := protowire.DecodeTag(tag)

	switch typ { //nolint:exhaustive // groups are not in use
	case protowire.VarintType:
		num = 0 // no number is wanted here
		_, err = s.varint()
	case protowire.Fixed32Type:
		num, length = 0, 4
	case protowire.Fixed64Type:
		num, length = 0, 8
	case protowire.BytesType:
		var n uint64
		if n, err = s.varint(); err == nil && n > math.MaxInt64 {
			err = errHead
		}

		length = int64(n)
	default:
		err = errHead
	}

	if err == nil && (num < 0 || length > end-s.pos) {
		err = errHead
	}

	return num, length, err
}

func (s *scanner) varint() (uint64, error) {
	v, err := binary.ReadUvarint(s)
	if err != nil {
		return 0, fmt.Errorf("read a number: %w", err)
	}

	return v, nil
}

// ReadByte implements io.ByteReader.
func (s *scanner) ReadByte() (byte, error) {
	b, err := s.buf.ReadByte()
	if err == nil {
		s.pos++
	}

	return b, err //nolint:wrapcheck // for varint
}

func (s *scanner) skip(n int64) error {
	s.pos += n

	if n <= int64(s.buf.Buffered()) {
		_, err := s.buf.Discard(int(n))

		return err //nolint:wrapcheck // there are so many
	}

	if _, err := s.src.Seek(s.pos, io.SeekStart); err != nil {
		return fmt.Errorf("skip a field: %w", err)
	}

	s.buf.Reset(s.src)

	return nil
}

// add reads a ValueInfoProto.
func (h *head) add(b []byte) error {
	var (
		name string
		d    declared
	)

	err := each(b, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case 1:
			name = string(v)
		case 2: // TypeProto
			return each(v, func(num protowire.Number, v []byte, _ uint64) error {
				if num != 1 { // not a tensor
					return nil
				}

				return d.tensor(v)
			})
		}

		return nil
	})
	if err != nil {
		return err
	}

	// A value of a name declared twice keeps the last; ONNX Runtime refuses such models.
	h.values[name] = d

	return nil
}

// tensor reads a TypeProto.Tensor.
func (d *declared) tensor(b []byte) error {
	return each(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 1:
			if n > math.MaxInt32 {
				return errHead
			}

			d.elem = int(n)
		case 2: // TensorShapeProto
			return each(v, func(_ protowire.Number, v []byte, _ uint64) error {
				symbol := ""

				err := each(v, func(num protowire.Number, v []byte, _ uint64) error {
					if num == 2 {
						symbol = string(v)
					}

					return nil
				})

				d.symbols = append(d.symbols, symbol)

				return err
			})
		}

		return nil
	})
}

// each calls f for every field of a message, with its bytes or its number.
func each(b []byte, f func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errHead
		}

		b = b[size:]

		var (
			v []byte
			n uint64
		)

		switch typ { //nolint:exhaustive // others are passed over
		case protowire.VarintType:
			n, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(num, typ, b)
		}

		if size < 0 {
			return errHead
		}

		b = b[size:]

		if err := f(num, v, n); err != nil {
			return err
		}
	}

	return nil
}
