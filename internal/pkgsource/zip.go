package pkgsource

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"strings"
)

// indexBytes bounds what one entry takes in the index of a zip archive, on average.
const indexBytes = 2 << 10

// encrypted is the flag of an entry that needs a password.
const encrypted = 1

// rationed is a ReaderAt that gives only so much until it is freed: reading the index of an
// archive keeps it in memory.
type rationed struct {
	in   io.ReaderAt
	left int64
	free bool
}

var errRation = errors.New("the index of the archive is too large")

// ReadAt implements io.ReaderAt.
func (r *rationed) ReadAt(p []byte, off int64) (int, error) {
	if r.free {
		return r.in.ReadAt(p, off)
	}

	if r.left -= int64(len(p)); r.left < 0 {
		return 0, errRation
	}

	return r.in.ReadAt(p, off)
}

func (u *unpacker) zip(in io.ReaderAt, size int64) error {
	const ends = 1 << 20 // what looking for the index takes

	ration := &rationed{in: in, left: ends + int64(u.lim.files)*indexBytes}

	r, err := zip.NewReader(ration, size)

	switch {
	case errors.Is(err, errRation):
		return refuse(err, "names an archive with an index that is too large (more than %d entries?)", u.lim.files)
	case err != nil && !errors.Is(err, zip.ErrInsecurePath):
		return err
	case len(r.File) > u.lim.files:
		return refuse(nil, "names an archive with more than %d entries", u.lim.files)
	}

	ration.free = true

	for _, e := range r.File {
		if err := u.zipEntry(e); err != nil {
			return err
		}
	}

	return nil
}

func (u *unpacker) zipEntry(e *zip.File) error {
	mode := e.Mode()

	switch {
	case strings.HasPrefix(e.Name, "__MACOSX/"):
		return nil // what macOS adds beside the files
	case e.Flags&encrypted != 0:
		return refuse(nil, "names an archive that holds %s, which is encrypted", quoted(e.Name))
	case mode&fs.ModeType == fs.ModeDir:
		return u.dir(e.Name)
	case !mode.IsRegular():
		return refuse(nil, "names an archive that holds %s, which is neither a file nor a directory", quoted(e.Name))
	case e.UncompressedSize64 > uint64(max(u.left, 0)):
		return u.tooLarge()
	}

	in, err := e.Open()
	if errors.Is(err, zip.ErrAlgorithm) {
		return refuse(err, "names an archive that holds %s, which is compressed in an unknown way", quoted(e.Name))
	}

	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only

	return u.file(e.Name, int64(e.UncompressedSize64), mode, in)
}
