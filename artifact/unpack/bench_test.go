package unpack

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// BenchmarkUnpack unpacks as init does, and while everything is read over FUSE.
func BenchmarkUnpack(b *testing.B) {
	many := []any{"d", -1}
	for i := range 2000 {
		many = append(many, fmt.Sprintf("d/%d", i), 4096)
	}
	for name, c := range map[string]struct {
		content []byte
		files   []string
		size    int
	}{
		"256 MiB":    {pack(b, "d", -1, "d/x", 256<<20), []string{"/x"}, 256 << 20},
		"2000 files": {pack(b, many...), names(2000), 4096},
	} {
		b.Run(name+"/init", func(b *testing.B) {
			for b.Loop() {
				dir, err := os.OpenRoot(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				err = archive.Untar(b.Context(), archive.NewReader(b.Context(), whole(c.content), int64(len(c.content))), archive.Folder{Root: dir})
				dir.Close()
				if err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(c.files) * c.size))
		})
		b.Run(name+"/unpack", func(b *testing.B) {
			for b.Loop() {
				w := start(b, c.content, whole(c.content))
				if err := <-w.done; err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(c.files) * c.size))
		})
		b.Run(name+"/read meanwhile", func(b *testing.B) {
			for b.Loop() {
				w := start(b, c.content, whole(c.content))
				readAll(b, w.at, c.files)
			}
			b.SetBytes(int64(len(c.files) * c.size))
		})
		b.Run(name+"/read again", func(b *testing.B) {
			w := start(b, c.content, whole(c.content))
			if err := <-w.done; err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				readAll(b, w.at, c.files)
			}
			b.SetBytes(int64(len(c.files) * c.size))
		})
	}
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("/%d", i)
	}
	return all
}

func readAll(b *testing.B, at string, files []string) {
	p := make([]byte, 128<<10)
	for _, name := range files {
		fd, err := unix.Open(at+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		for n := 1; n > 0 && err == nil; {
			n, err = unix.Read(fd, p)
		}
		unix.Close(fd)
		if err != nil {
			b.Fatal(err)
		}
	}
}
