package onnxgen

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Tensor is a serialised tensor (a .pb file of ONNX's own test data) as read by ParseTensor.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int64
	// Raw is the little-endian data; for strings each element has a 32-bit length before it.
	Raw []byte
}

// ParseTensor reads a TensorProto.
func ParseTensor(b []byte) (*Tensor, error) {
	t := &Tensor{}

	var values []uint64 // of the fields for one type each

	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("parse tensor: %w", protowire.ParseError(n))
		}

		b = b[n:]

		size := protowire.ConsumeFieldValue(num, typ, b)
		if size < 0 {
			return nil, fmt.Errorf("parse tensor: %w", protowire.ParseError(size))
		}

		field := b[:size]
		b = b[size:]

		switch num {
		case 1:
			for _, v := range numbers(typ, field, 0) {
				t.Shape = append(t.Shape, int64(v))
			}
		case 2:
			for _, v := range numbers(typ, field, 0) {
				t.Type = Type(v)
			}
		case 4:
			values = append(values, numbers(typ, field, 4)...)
		case 5, 7, 11:
			values = append(values, numbers(typ, field, 0)...)
		case 10:
			values = append(values, numbers(typ, field, 8)...)
		case 6:
			s, _ := protowire.ConsumeBytes(field)
			t.Raw = append(binary.LittleEndian.AppendUint32(t.Raw, uint32(len(s))), s...)
		case 8:
			t.Name, _ = protowire.ConsumeString(field)
		case 9:
			t.Raw, _ = protowire.ConsumeBytes(field)
		}
	}

	if len(values) > 0 {
		t.pack(values)
	}

	return t, nil
}

// pack puts values into Raw in the width of the type.
func (t *Tensor) pack(values []uint64) {
	le := binary.LittleEndian

	for _, v := range values {
		switch t.Type { //nolint:exhaustive // the rest has 64 bits
		case Uint8, Int8, Bool:
			t.Raw = append(t.Raw, byte(v))
		case Uint16, Int16, Float16, BFloat16:
			t.Raw = le.AppendUint16(t.Raw, uint16(v))
		case Float, Int32, Uint32:
			t.Raw = le.AppendUint32(t.Raw, uint32(v))
		default:
			t.Raw = le.AppendUint64(t.Raw, v)
		}
	}
}

// numbers reads a field that holds one number or packed ones of the given width; 0 is varint.
func numbers(typ protowire.Type, b []byte, width int) []uint64 {
	if typ == protowire.BytesType {
		b, _ = protowire.ConsumeBytes(b)
	}

	var out []uint64

	for len(b) > 0 {
		var (
			v uint64
			n int
		)

		switch width {
		case 4:
			var w uint32

			w, n = protowire.ConsumeFixed32(b)
			v = uint64(w)
		case 8:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeVarint(b)
		}

		if n < 0 {
			break
		}

		out = append(out, v)
		b = b[n:]
	}

	if len(out) == 0 && typ != protowire.BytesType {
		out = append(out, 0)
	}

	return out
}
