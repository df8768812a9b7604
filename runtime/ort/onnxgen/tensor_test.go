package onnxgen_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

func varint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func chunk(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func TestParseTensor(t *testing.T) {
	t.Parallel()

	packed := protowire.AppendVarint(protowire.AppendVarint(nil, 2), 1)

	for name, tc := range map[string]struct {
		in    []byte
		typ   onnxgen.Type
		shape []int64
		raw   string
	}{
		"raw":     {chunk(varint(varint(nil, 1, 2), 2, 2), 9, []byte("ab")), onnxgen.Uint8, []int64{2}, "ab"},
		"packed":  {chunk(varint(chunk(nil, 1, packed), 2, 6), 5, packed), onnxgen.Int32, []int64{2, 1}, "\x02\x00\x00\x00\x01\x00\x00\x00"},
		"half":    {varint(varint(nil, 2, 10), 5, 0x3c00), onnxgen.Float16, nil, "\x00\x3c"},
		"wide":    {varint(varint(nil, 2, 7), 7, 3), onnxgen.Int64, nil, "\x03\x00\x00\x00\x00\x00\x00\x00"},
		"strings": {chunk(chunk(varint(nil, 2, 8), 6, []byte("x")), 6, nil), onnxgen.String, nil, "\x01\x00\x00\x00x\x00\x00\x00\x00"},
		"float":   {chunk(varint(nil, 2, 1), 4, []byte{0, 0, 128, 63}), onnxgen.Float, nil, "\x00\x00\x80\x3f"},
	} {
		got, err := onnxgen.ParseTensor(tc.in)
		if err != nil || got.Type != tc.typ || !slices.Equal(got.Shape, tc.shape) || string(got.Raw) != tc.raw {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}

	if _, err := onnxgen.ParseTensor([]byte{0x0a, 0xff}); err == nil {
		t.Error("a cut tensor was read")
	}
}

func FuzzParseTensor(f *testing.F) {
	f.Add(chunk(varint(nil, 2, 1), 9, []byte("abcd")))
	f.Add(chunk(nil, 2, nil))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = onnxgen.ParseTensor(b) })
}
