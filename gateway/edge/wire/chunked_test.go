package wire_test

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

// decoded is what a chunked body gave; rest is what came after it.
type decoded struct {
	data, rest string
	done       bool
}

// decode feeds raw in pieces of step bytes and reads through a small buffer.
func decode(raw string, step int) (d decoded, err error) {
	var (
		c   wire.ChunkReader
		out bytes.Buffer
		dst [7]byte
	)

	for at := 0; at < len(raw) && !c.Done(); {
		end := min(len(raw), at+step)

		used, n, fault := c.Read(dst[:], []byte(raw[at:end]))
		out.Write(dst[:n])

		if fault != nil {
			return decoded{out.String(), raw[at:], false}, fault
		}

		at += used
		d.rest = raw[at:]
	}

	d.data, d.done = out.String(), c.Done()

	return d, nil
}

func TestChunkedDecodesWhateverTheReadsAre(t *testing.T) {
	t.Parallel()

	for raw, want := range map[string]string{
		"0\r\n\r\n":                               "",
		"5\r\nhello\r\n0\r\n\r\n":                 "hello",
		"A\r\n0123456789\r\n0\r\n\r\n":            "0123456789",
		"0000005\r\nhello\r\n000\r\n\r\n":         "hello",
		"5;a=b\r\nhello\r\n0;c\r\n\r\n":           "hello",
		"5 ; a = \"b\"\r\nhello\r\n0\r\n\r\n":     "hello",
		"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n":        "hello",
		"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n":     "hello",
		"5\r\nhel\r\n\r\n0\r\nA:\r\nB: c\r\n\r\n": "hel\r\n",
	} {
		for step := 1; step < 12; step++ {
			d, err := decode(raw+"GET /", step)
			if d.data != want || !d.done || err != nil || d.rest != "GET /" {
				t.Errorf("%q in steps of %d: %+v, %v", raw, step, d, err)
			}
		}
	}
}

func TestChunkedRefuses(t *testing.T) {
	t.Parallel()

	for name, raw := range map[string]string{
		"0x":                  "0x5\r\nhello\r\n0\r\n\r\n",
		"plus":                "+5\r\nhello\r\n0\r\n\r\n",
		"minus":               "-5\r\nhello\r\n0\r\n\r\n",
		"empty size":          "\r\nhello\r\n0\r\n\r\n",
		"space first":         " 5\r\nhello\r\n0\r\n\r\n",
		"quoted":              "\"5\"\r\nhello\r\n0\r\n\r\n",
		"letter":              "g\r\nhello\r\n0\r\n\r\n",
		"comma":               "5,0\r\nhello\r\n0\r\n\r\n",
		"two sizes":           "5 5\r\nhello\r\n0\r\n\r\n",
		"overflow":            "FFFFFFFFFFFFFFFF\r\n",
		"17 digits":           "00000000000000005\r\nhello\r\n0\r\n\r\n",
		"LF after size":       "5\nhello\r\n0\r\n\r\n",
		"LF in extension":     "5;a\nb\r\nhello\r\n0\r\n\r\n",
		"CR in extension":     "5;a\rb\r\nhello\r\n0\r\n\r\n",
		"NUL in extension":    "5;a\x00b\r\nhello\r\n0\r\n\r\n",
		"long extension":      "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n",
		"extensions together": strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 100) + "0\r\n\r\n",
		"LF after data":       "5\r\nhello\n0\r\n\r\n",
		"no end of data":      "5\r\nhello0\r\n\r\n",
		"LF after last":       "0\n\r\n",
		"LF at the end":       "0\r\n\n",
		"space in trailer":    "0\r\nX : y\r\n\r\n",
		"fold in trailer":     "0\r\nX: y\r\n z\r\n\r\n",
		"LF in trailer":       "0\r\nX: y\n\r\n",
		"NUL in trailer":      "0\r\nX: \x00\r\n\r\n",
		"no colon in trailer": "0\r\nXy\r\n\r\n",
		"long trailers":       "0\r\n" + strings.Repeat("X: yyyyyyyy\r\n", 1000) + "\r\n",
		"underscore trailer":  "0\r\nX_Y: z\r\n\r\n",
	} {
		for _, step := range []int{1, 3, 1 << 20} {
			if _, err := decode(raw, step); err == nil {
				t.Errorf("%s in steps of %d was accepted", name, step)
			}
		}
	}
}

func TestChunkedTakesTinyChunks(t *testing.T) {
	t.Parallel()

	d, err := decode(strings.Repeat("1\r\nx\r\n", 100_000)+"0\r\n\r\n", 4096)
	if err != nil || !d.done || len(d.data) != 100_000 {
		t.Fatalf("%d bytes, %v, %v", len(d.data), d.done, err)
	}

	if _, err := decode(strings.Repeat("0000000000000001\r\nx\r\n", 100_000)+"0\r\n\r\n", 4096); err == nil {
		t.Fatal("twenty bytes of framing a byte were accepted")
	}
}

func TestChunkedTellsWhatMayBeTakenDirectly(t *testing.T) {
	t.Parallel()

	var c wire.ChunkReader

	if c.DataLeft() != 0 {
		t.Fatal("data before a size")
	}

	if used, n, err := c.Read(make([]byte, 0), []byte("64\r\n")); used != 4 || n != 0 || err != nil || c.DataLeft() != 100 {
		t.Fatalf("%d %d %v, left %d", used, n, err, c.DataLeft())
	}

	c.Took(60)

	if c.DataLeft() != 40 {
		t.Fatalf("left %d", c.DataLeft())
	}

	c.Took(40)

	if used, _, err := c.Read(nil, []byte("\r\n0\r\n\r\n")); used != 7 || err != nil || !c.Done() {
		t.Fatalf("%d %v", used, err)
	}
}

// FuzzChunked holds that what is accepted, net/http reads as the same bytes, and that the size of
// the reads does not matter.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "0\r\n\r\n", "a\n", "5\r\nhello\n0\r\n\r\n",
	} {
		f.Add(s, 3)
	}

	f.Fuzz(func(t *testing.T, raw string, step int) {
		step = 1 + int(uint(step)%64)

		one, err := decode(raw, 1<<20)
		many, err2 := decode(raw, step)

		if one.data != many.data && err == nil || one.done != many.done || (err == nil) != (err2 == nil) || one.done && one.rest != many.rest {
			t.Fatalf("in one: %+v %v; in steps of %d: %+v %v", one, err, step, many, err2)
		}

		if !one.done {
			return
		}

		got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(raw)))
		if err != nil || string(got) != one.data {
			t.Fatalf("net/http reads %q, %v; the guard %q", got, err, one.data)
		}
	})
}
