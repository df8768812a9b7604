package pkgsource_test

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/internal/pkgsource"
)

func TestAddresses(t *testing.T) {
	t.Parallel()

	const (
		public = iota
		private
		never
	)

	for addr, want := range map[string]int{
		"8.8.8.8": public, "2606:4700::1111": public, "::ffff:8.8.8.8": public, "64:ff9b::808:808": public,
		"127.0.0.1": private, "127.9.9.9": private, "::1": private, "10.1.2.3": private, "172.16.0.1": private,
		"192.168.1.1": private, "100.64.0.1": private, "fd12::1": private, "::ffff:127.0.0.1": private,
		"64:ff9b::7f00:1": private, "2002:7f00:1::": private, "2002:a00:1::1": private, "::127.0.0.1": private,
		"198.18.0.1": private, "240.0.0.1": private, "0.1.2.3": private, "2001:0:1::1": private, "fec0::1": private,
		"169.254.169.254": never, "fe80::1": never, "fe80::1%eth0": never, "0.0.0.0": never, "::": never, "224.0.0.1": never,
		"ff02::1": never, "255.255.255.255": never, "100.100.100.200": never, "fd00:ec2::254": never,
		"::ffff:169.254.169.254": never, "64:ff9b::a9fe:a9fe": never, "2002:a9fe:a9fe::1": never, "168.63.129.16": never,
	} {
		a := netip.MustParseAddr(addr)
		if got := pkgsource.Permitted(a, false); got != (want == public) {
			t.Errorf("%s: %v", addr, got)
		}

		if got := pkgsource.Permitted(a, true); got != (want != never) {
			t.Errorf("%s with allow_private: %v", addr, got)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, entry{name: "config.json", text: "{}"}, entry{name: "a/b", text: "x"}))
	f.Add(gzipped(f, tarOf(f, entry{name: "../x", text: "{}"})))
	f.Add(zipOf(f, entry{name: "config.json", text: "{}"}, entry{name: "a/b", text: "x"}))
	f.Add(zipOf(f, entry{name: "/x", text: "{}"}))

	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		file, dir := filepath.Join(root, "archive"), filepath.Join(root, "tree")
		must(t, os.WriteFile(file, data, 0o600))
		must(t, os.Mkdir(dir, 0o700))

		const maxBytes, maxFiles = 1 << 16, 20

		_ = pkgsource.Unpack(t.Context(), file, dir, maxBytes, maxFiles)

		var size int64

		n := 0

		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == root || path == file || path == dir {
				return err
			}

			info, err := d.Info()
			if err != nil {
				return err
			}

			rel, err := filepath.Rel(dir, path)
			if err != nil || !filepath.IsLocal(rel) || !info.IsDir() && !info.Mode().IsRegular() {
				t.Errorf("made %s, %v", path, info.Mode())
			}

			if n++; !info.IsDir() {
				size += info.Size()
			}

			return nil
		}))

		if size > maxBytes+1 || n > maxFiles+32 {
			t.Errorf("%d entries with %d bytes", n, size)
		}
	})
}
