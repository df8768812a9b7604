package pkgsource

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// limits of what an archive may become.
type limits struct {
	name  string // of the archive, for errors
	bytes int64
	files int
}

const (
	maxDepth     = 32
	maxPathBytes = 1024
	maxNameBytes = 255
	// maxRatio is how many times larger than itself an archive may become, once it is over
	// freeBytes. Weights never shrink like that; bombs do.
	maxRatio  = 250
	freeBytes = 256 << 20
)

// unpacker writes the entries of one archive below one directory.
type unpacker struct {
	ctx     context.Context //nolint:containedctx // lives for one archive
	root    *os.Root
	lim     limits
	seen    map[string]bool // files
	entries int
	left    int64
	buf     []byte
}

// unpack writes what the archive holds below dir, which is empty.
func unpack(ctx context.Context, archive, dir string, lim limits) (err error) {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only

	info, err := in.Stat()
	if err != nil {
		return err
	}

	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, root.Close()) }()

	u := &unpacker{
		ctx: ctx, root: root, lim: lim, seen: map[string]bool{}, buf: make([]byte, readChunk),
		left: min(lim.bytes, max(freeBytes, info.Size()*maxRatio)),
	}

	return u.explain(u.run(in, info.Size()))
}

// run goes by what the file begins with: names and content types lie.
func (u *unpacker) run(in *os.File, size int64) error {
	head := make([]byte, 512)

	n, err := in.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}

	switch head = head[:n]; {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bufio.NewReaderSize(in, readChunk))
		if err != nil {
			return err
		}

		return u.tar(z)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return u.zip(in, size)
	case n == 512 && string(head[257:262]) == "ustar", n == 512 && oldTar(head):
		return u.tar(bufio.NewReaderSize(in, readChunk))
	default:
		return refuse(nil, "names %s, which is not an archive (tar, tar.gz or zip)", u.lim.name)
	}
}

// oldTar knows archives from before ustar by the checksum of their first header.
func oldTar(head []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(head)).Next()

	return err == nil && h.Name != ""
}

func (u *unpacker) tar(in io.Reader) error {
	src := &endSeen{in: &metered{in: &stoppable{u.ctx, in}, left: u.left + int64(u.lim.files)*headBytes + tailBytes}}
	r := tar.NewReader(src)

	for {
		h, err := r.Next()

		switch {
		case errors.Is(err, io.EOF) && src.end:
			return io.ErrUnexpectedEOF // without the mark of the end, who knows what is missing
		case errors.Is(err, io.EOF):
			return u.rest(src)
		case err != nil:
			return err
		}

		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			err = u.enter("")
		case tar.TypeDir:
			err = u.dir(h.Name)
		case tar.TypeReg:
			err = u.file(h.Name, h.Size, h.FileInfo().Mode(), r)
		default:
			err = refuse(nil, "names an archive that holds %s, which is neither a file nor a directory", quoted(h.Name))
		}

		if err != nil {
			return err
		}
	}
}

// rest reads to the end, so that the checksum behind it is looked at.
func (u *unpacker) rest(in io.Reader) error {
	n, err := io.CopyBuffer(io.Discard, io.LimitReader(in, tailBytes), u.buf)
	if err == nil && n == tailBytes {
		return refuse(nil, "names an archive with much behind its end")
	}

	return err
}

const (
	// headBytes is what the heads of an entry take at most, on average; tailBytes is what may stand behind the end.
	headBytes = 4 << 10
	tailBytes = 16 << 20
)

// metered bounds all that is unpacked, heads included: an archive may consist of nothing else.
type metered struct {
	in   io.Reader
	left int64
}

var errMetered = errors.New("the archive unpacks to too much")

// Read implements io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errMetered
	}

	n, err := m.in.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)

	return n, err
}

// endSeen notices when there was nothing more to read.
type endSeen struct {
	in  io.Reader
	end bool
}

// Read implements io.Reader.
func (e *endSeen) Read(p []byte) (int, error) {
	n, err := e.in.Read(p)
	e.end = e.end || n == 0 && errors.Is(err, io.EOF)

	return n, err
}

func quoted(name string) string {
	const most = 200
	if len(name) > most {
		return fmt.Sprintf("%q…", name[:most])
	}

	return fmt.Sprintf("%q", name)
}

// clean checks the name of an entry; "" is the top itself.
func clean(name string) (string, error) {
	bad := func(why string) (string, error) {
		return "", refuse(nil, "names an archive that holds %s: %s", quoted(name), why)
	}

	switch {
	case name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return bad("the name is not readable text")
	case strings.Contains(name, `\`):
		return bad("the name holds a backslash")
	case strings.HasPrefix(name, "/") || len(name) > 1 && name[1] == ':':
		return bad("the name is absolute")
	case len(name) > maxPathBytes:
		return bad("the name is too long")
	}

	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return bad("the name leads out of the archive")
		case len(part) > maxNameBytes:
			return bad("the name is too long")
		}
	}

	name = path.Clean(name)
	if name == "." {
		return "", nil
	}

	if strings.Count(name, "/") >= maxDepth {
		return bad("it is nested too deep")
	}

	return name, nil
}

// enter counts an entry and makes its directories.
func (u *unpacker) enter(dir string) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}

	u.entries++

	// Directories count when they are made, whoever asks for them.
	if _, err := u.root.Stat(cmp.Or(dir, ".")); errors.Is(err, fs.ErrNotExist) {
		u.entries += strings.Count(dir, "/")
	}

	if u.entries > u.lim.files {
		return refuse(nil, "names an archive with more than %d entries", u.lim.files)
	}

	if dir == "." || dir == "" {
		return nil
	}

	return u.root.MkdirAll(dir, 0o755)
}

func (u *unpacker) dir(name string) error {
	name, err := clean(name)
	if err != nil {
		return err
	}

	return u.enter(name)
}

func (u *unpacker) file(name string, size int64, mode fs.FileMode, in io.Reader) (err error) {
	given := name

	if name, err = clean(name); err != nil {
		return err
	}

	switch {
	case name == "" || strings.HasSuffix(given, "/"):
		return refuse(nil, "names an archive that holds %s: a file needs a name", quoted(given))
	case u.seen[name]:
		return refuse(nil, "names an archive that holds %s twice", quoted(name))
	case size < 0 || size > u.left:
		return u.tooLarge()
	}

	if err := u.enter(path.Dir(name)); err != nil {
		return err
	}

	u.seen[name] = true

	perm := fs.FileMode(0o600)
	if mode&0o111 != 0 {
		perm = 0o700
	}

	out, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, out.Close()) }()

	n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(&stoppable{u.ctx, in}, size+1), u.buf)
	u.left -= n

	switch {
	case err != nil:
		return err
	case n != size:
		return refuse(nil, "names a damaged archive: %s has another size than it says", quoted(name))
	}

	return nil
}

func (u *unpacker) tooLarge() error {
	return refuse(nil, "names an archive that unpacks to more than is allowed (%d bytes, and %d times its own size)", u.lim.bytes, maxRatio)
}

// explain blames the archive, unless it is our disk or our end.
func (u *unpacker) explain(err error) error {
	var f *fault.Error

	switch {
	case err == nil, errors.As(err, &f), u.ctx.Err() != nil, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err
	case errors.Is(err, errMetered):
		return u.tooLarge()
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return refuse(err, "names an archive in which a file and a directory have the same name")
	case isLocal(err):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(err, "names an archive that is cut off")
	default:
		return refuse(err, "names an archive that is damaged or of an unknown kind")
	}
}
