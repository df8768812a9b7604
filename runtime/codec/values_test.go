package codec_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

func TestValuesRoundTrip(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		typ  engine.DataType
		n    int
		text string
		want string // as written back, when it differs
	}{
		{engine.FP32, 4, `[[1,2.5],[-0.1,3e38]]`, `[1,2.5,-0.1,3e+38]`},
		{engine.FP32, 3, `[NaN,Infinity,-Infinity]`, ``},
		{engine.FP64, 3, `[0.1,1.7976931348623157e+308,5e-324]`, ``},
		{engine.Bool, 2, `[true,false]`, ``},
		{engine.Int8, 3, `[-128,0,127]`, ``},
		{engine.Int16, 2, `[-32768,32767]`, ``},
		{engine.Int32, 2, `[-2147483648,2147483647]`, ``},
		{engine.Int64, 2, `[-9223372036854775808,9223372036854775807]`, ``},
		{engine.Uint8, 2, `[0,255]`, ``},
		{engine.Uint16, 1, `[65535]`, ``},
		{engine.Uint32, 1, `[4294967295]`, ``},
		{engine.Uint64, 1, `[18446744073709551615]`, ``},
		{engine.Bytes, 3, `[["a"],["é\n"],[""]]`, `["a","é\n",""]`},
		{engine.Bytes, 0, `[]`, ``},
		{engine.FP32, 0, `[[],[]]`, `[]`},
		{engine.Int32, 1, `5`, `[5]`},
		{engine.Bytes, 1, `"x"`, `["x"]`},
	} {
		data, err := scanner(c.text).Values(nil, "in", c.typ, c.n)
		if err != nil {
			t.Errorf("%s %s: %v", c.typ, c.text, err)

			continue
		}

		got, err := codec.AppendValues(nil, &engine.Tensor{Name: "out", Type: c.typ, Data: data})
		if c.want == "" {
			c.want = c.text
		}

		if err != nil || string(got) != c.want {
			t.Errorf("%s %s: %s, %v", c.typ, c.text, got, err)
		}
	}
}

func TestValuesNameWhatDoesNotFit(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		typ  engine.DataType
		n    int
		text string
		code fault.Code
		part string
	}{
		{engine.FP32, 2, `[1]`, fault.BadTensor, "shape does not match true shape"},
		{engine.FP32, 1, `[1,2]`, fault.BadTensor, "Shape does not match true shape"},
		{engine.FP32, 1, `["1"]`, fault.BadTensor, "element 0 of input 'in'"},
		{engine.FP32, 2, `[1,null]`, fault.BadTensor, "element 1 of input 'in'"},
		{engine.FP32, 1, `[1e39]`, fault.BadTensor, "out of range"},
		{engine.FP64, 1, `[1e309]`, fault.BadTensor, "out of range"},
		{engine.FP64, 1, `[` + strings.Repeat("9", 400) + `]`, fault.BadTensor, "out of range"},
		{engine.Int8, 1, `[128]`, fault.BadTensor, "out of range"},
		{engine.Int8, 1, `[-129]`, fault.BadTensor, "out of range"},
		{engine.Uint8, 1, `[256]`, fault.BadTensor, "out of range"},
		{engine.Uint8, 1, `[-1]`, fault.BadTensor, "out of range"},
		{engine.Int64, 1, `[9223372036854775808]`, fault.BadTensor, "out of range"},
		{engine.Uint64, 1, `[18446744073709551616]`, fault.BadTensor, "out of range"},
		{engine.Int32, 1, `[1.5]`, fault.BadTensor, "not an integer"},
		{engine.Int32, 1, `[1e3]`, fault.BadTensor, "not an integer"},
		{engine.Int32, 1, `[--1]`, fault.BadJSON, ""},
		{engine.Bool, 1, `[1]`, fault.BadTensor, "true or false"},
		{engine.Bytes, 1, `[1]`, fault.BadTensor, "string"},
		{engine.Bytes, 2, `["a"]`, fault.BadTensor, "shape"},
		{engine.Bytes, 1, `["a","b"]`, fault.BadTensor, "hape"},
		{engine.FP16, 1, `[1]`, fault.BadTensor, "receiving FP16 data via JSON is not supported"},
		{engine.FP32, 1, `[1`, fault.BadJSON, ""},
		{engine.FP32, 2, `[1 2]`, fault.BadJSON, ""},
		{engine.FP32, 1, strings.Repeat("[", 1_000_000), fault.BadJSON, "100 deep"},
		{engine.FP32, 1, `[01]`, fault.BadJSON, ""},
		{engine.FP32, 1, `[`, fault.BadJSON, ""},
		{engine.FP32, 1, ``, fault.BadJSON, ""},
		{engine.FP32, 0, `[{}]`, fault.BadTensor, ""},
	} {
		_, err := scanner(c.text).Values(nil, "in", c.typ, c.n)

		f := fault.From(err)
		if f == nil || f.Code != c.code || !strings.Contains(f.Message(), c.part) {
			t.Errorf("%s %.60s: %v, want %q", c.typ, c.text, err, c.part)
		}
	}
}

func TestFloatsAreCorrectlyRounded(t *testing.T) {
	t.Parallel()

	r := rand.New(rand.NewPCG(1, 2))
	check := func(text string) {
		t.Helper()

		// The first of two values takes the short way, the second the general one.
		data, err := scanner("["+text+" ,"+text+"]").Values(nil, "x", engine.FP64, 2)
		want, wantErr := strconv.ParseFloat(text, 64)

		if (err == nil) != (wantErr == nil) || (err == nil && (math.Float64frombits(binary.LittleEndian.Uint64(data)) != want ||
			!bytes.Equal(data[:8], data[8:]))) {
			t.Errorf("FP64 %s: %v, want %v (%v)", text, data, want, err)
		}

		data, err = scanner("["+text+","+text+"]").Values(nil, "x", engine.FP32, 2)
		want32, wantErr := strconv.ParseFloat(text, 32)

		if (err == nil) != (wantErr == nil) || (err == nil && (math.Float32frombits(binary.LittleEndian.Uint32(data)) != float32(want32) ||
			!bytes.Equal(data[:4], data[4:]))) {
			t.Errorf("FP32 %s: %v, want %v (%v)", text, data, float32(want32), err)
		}
	}

	for range 20_000 {
		v := math.Float64frombits(r.Uint64())
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}

		f := math.Float32frombits(r.Uint32() & 0x7f7fffff)
		check(strconv.FormatFloat(v, 'g', -1, 64))
		check(strconv.FormatFloat(r.NormFloat64(), 'f', r.IntN(24), 64))
		check(strconv.FormatFloat(float64(f), 'g', -1, 32))
		// Half-way between two float32.
		check(strconv.FormatFloat((float64(f)+float64(math.Nextafter32(f, math.MaxFloat32)))/2, 'f', -1, 64))
	}

	for _, text := range []string{"16777217", "1.00000005960464477539062500000001", "3.4028235677973366e38", "3.4028234e38", "-0", "0e999999999999", "1e-999999999999"} {
		check(text)
	}
}

func TestIntegersTakeTheWholeRangeAndNoMore(t *testing.T) {
	t.Parallel()

	for typ, limits := range map[engine.DataType][2]string{ //nolint:exhaustive // integers only
		engine.Int8: {"-128", "127"}, engine.Int16: {"-32768", "32767"}, engine.Int32: {"-2147483648", "2147483647"},
		engine.Int64: {"-9223372036854775808", "9223372036854775807"}, engine.Uint8: {"0", "255"}, engine.Uint16: {"0", "65535"},
		engine.Uint32: {"0", "4294967295"}, engine.Uint64: {"0", "18446744073709551615"},
	} {
		text := "[" + limits[0] + ", " + limits[1] + "," + limits[0] + "]"

		data, err := scanner(text).Values(nil, "x", typ, 3)
		got, _ := codec.AppendValues(nil, &engine.Tensor{Type: typ, Data: data})

		if err != nil || string(got) != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%s: %s, %v", typ, got, err)
		}

		for _, l := range limits {
			past, _ := new(big.Int).SetString(l, 10)
			past.Add(past, big.NewInt(int64(past.Sign()|1)))

			if l == "0" {
				past.SetInt64(-1)
			}

			if _, err := scanner("["+past.String()+",0]").Values(nil, "x", typ, 2); err == nil || !strings.Contains(err.Error(), "out of range") {
				t.Errorf("%s: %s: %v", typ, past, err)
			}
		}
	}
}

func FuzzValues(f *testing.F) {
	f.Add(`[1,2,3]`, uint8(11), uint16(3))
	f.Add(`[["a"],["b"]]`, uint8(14), uint16(2))
	f.Add(`[true,false]`, uint8(1), uint16(2))

	f.Fuzz(func(t *testing.T, text string, typ uint8, n uint16) {
		dt := engine.DataType(typ)

		data, err := scanner(text).Values(nil, "in", dt, int(n))
		if err != nil {
			if fault.From(err).Code == fault.Internal {
				t.Fatal(err)
			}

			return
		}

		if dt == engine.Bytes {
			if codec.CountBytes(data) != int(n) {
				t.Fatalf("%d strings, want %d", codec.CountBytes(data), n)
			}

			return
		}

		if len(data) != int(n)*dt.Size() {
			t.Fatalf("%d bytes for %d of %s", len(data), n, dt)
		}
	})
}

func TestHalfAgreesWithItsInverse(t *testing.T) {
	t.Parallel()

	for h := range 1 << 16 {
		f := codec.Float16(uint16(h))
		if back := codec.Half(f); back != uint16(h) && !math.IsNaN(float64(f)) {
			t.Fatalf("%#x -> %g -> %#x", h, f, back)
		}

		// Between two neighbours the nearer one wins, and the even one in the middle.
		next := codec.Float16(uint16(h + 1))
		if h&0x7fff >= 0x7bff || math.IsNaN(float64(f)) {
			continue
		}

		even := uint16(h + h&1)
		if got := codec.Half((f + next) / 2); got != even {
			t.Fatalf("middle of %#x and %#x: %#x", h, h+1, got)
		}
	}

	if codec.Half(1e6) != 0x7c00 || codec.Half(-65520) != 0xfc00 || codec.Half(65519) != 0x7bff || codec.Half(float32(math.NaN()))&0x3ff == 0 {
		t.Error("overflow or NaN")
	}
}

func TestAppendRoundedStaysInRange(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		typ  engine.DataType
		v    float64
		want string
	}{
		{engine.Uint8, 254.5, "254"},
		{engine.Uint8, 300, "255"},
		{engine.Uint8, -3, "0"},
		{engine.Uint8, math.NaN(), "0"},
		{engine.Int8, 200, "127"},
		{engine.Int8, -200, "-128"},
		{engine.Int32, -1.6, "-2"},
		{engine.Int64, 1e30, "9223372036854775807"},
		{engine.Int64, -1e30, "-9223372036854775808"},
		{engine.Uint64, 1e30, "18446744073709551615"},
		{engine.Int16, 7, "7"},
	} {
		if got := codec.AppendScalar(nil, c.typ, codec.AppendRounded(nil, c.typ, c.v)); string(got) != c.want {
			t.Errorf("%s %g: %s, want %s", c.typ, c.v, got, c.want)
		}
	}
}

func TestAppendValuesRefusesWhatJSONCannotCarry(t *testing.T) {
	t.Parallel()

	for _, tensor := range []engine.Tensor{
		{Name: "o", Type: engine.FP16, Data: make([]byte, 2)},
		{Name: "o", Type: engine.BF16, Data: make([]byte, 2)},
		{Name: "o", Type: engine.Bytes, Data: []byte{1, 0, 0, 0, 0xff}},
	} {
		if _, err := codec.AppendValues(nil, &tensor); !errors.Is(err, &fault.Error{Code: fault.BadTensor}) || !strings.Contains(err.Error(), "output o") {
			t.Errorf("%s: %v", tensor.Type, err)
		}
	}
}

func TestAppendString(t *testing.T) {
	t.Parallel()

	for _, text := range []string{"", "a\"b\\c", "\x00\x1f\n\t", "é😀", "bad\xffend\xc3"} {
		var back string
		if err := json.Unmarshal(codec.AppendString(nil, text), &back); err != nil || back != strings.ToValidUTF8(text, "\ufffd") {
			t.Errorf("%q: %q, %v", text, back, err)
		}
	}
}

func TestTopK(t *testing.T) {
	t.Parallel()

	r := rand.New(rand.NewPCG(3, 4))

	for _, n := range []int{1, 5, 64, 65, 1000} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64(r.IntN(n))
		}

		values[r.IntN(n)] = math.NaN()

		for _, k := range []int{0, 1, 5, 40, n} {
			k = min(k, n)
			order, all := identity(n), identity(n)
			codec.TopK(order, values, k)
			codec.TopK(all, values, n)

			for i := range k {
				if order[i] != all[i] {
					t.Fatalf("n %d k %d: place %d is %d, a full sort says %d", n, k, i, order[i], all[i])
				}

				if i > 0 && values[order[i]] > values[order[i-1]] {
					t.Fatalf("n %d k %d: not sorted", n, k)
				}
			}
		}
	}
}

func identity(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}

	return out
}

func floatText(n, digits int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	out := []byte{'['}

	for i := range n {
		if i > 0 {
			out = append(out, ',')
		}

		out = strconv.AppendFloat(out, r.NormFloat64(), 'f', digits, 64)
	}

	return append(out, ']')
}

func BenchmarkValuesFP32(b *testing.B) {
	for _, digits := range []int{3, 7, 16} {
		b.Run(strconv.Itoa(digits)+"digits", func(b *testing.B) {
			text := floatText(10_000, digits)
			dst := make([]byte, 0, 40_000)

			var s codec.Scanner

			b.SetBytes(int64(len(text)))
			b.ReportAllocs()

			for b.Loop() {
				s.Reset(text)

				if _, err := s.Values(dst, "x", engine.FP32, 10_000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendValuesFP32(b *testing.B) {
	var s codec.Scanner

	s.Reset(floatText(10_000, 7))

	data, err := s.Values(nil, "x", engine.FP32, 10_000)
	if err != nil {
		b.Fatal(err)
	}

	t := engine.Tensor{Type: engine.FP32, Data: data}
	dst := make([]byte, 0, 1<<20)

	b.ReportAllocs()

	for b.Loop() {
		out, err := codec.AppendValues(dst, &t)
		if err != nil {
			b.Fatal(err)
		}

		b.SetBytes(int64(len(out)))
	}
}
