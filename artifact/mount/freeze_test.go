package mount

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// No write that has begun before is seen after Freeze.
func TestFreezeAwaitsWrites(t *testing.T) {
	spool, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	for range 50 {
		all := newFiles(spool, nil, slog.New(slog.DiscardHandler))
		n := all.file(File{})
		if n.local, err = os.CreateTemp(t.TempDir(), ""); err != nil {
			t.Fatal(err)
		}
		defer n.local.Close()
		all.handles[1] = &handle{node: n}
		begun := make(chan struct{}, 1)
		var writers sync.WaitGroup
		for i := range 4 {
			data := bytes.Repeat([]byte{byte(i)}, 1<<20)
			writers.Go(func() {
				for status := fuse.OK; status.Ok(); {
					_, status = all.Write(nil, &fuse.WriteIn{Fh: 1}, data)
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		<-begun
		(&Server{files: all}).Freeze()
		frozen := make([]byte, 1<<20)
		if _, err := n.local.ReadAt(frozen, 0); err != nil {
			t.Fatal(err)
		}
		writers.Wait()
		later := make([]byte, 1<<20)
		if _, err := n.local.ReadAt(later, 0); err != nil || !bytes.Equal(frozen, later) {
			t.Fatalf("the content has changed after Freeze (%v)", err)
		}
	}
}
