package bench

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// rclone is a program with another reader, from $PATH. Its rows are left out without it.
const rclone = "rclone"

// beside measures rclone's mount in the same way as ours.
func beside(b *testing.B, store *testbucket.Server, bucket object.Bucket, info object.Info, t *table) {
	program, err := exec.LookPath(rclone)
	if err != nil {
		t.row(rclone, "not installed")
		return
	}
	dir := b.TempDir()
	remote := fmt.Sprintf(":s3,provider=Other,endpoint='http://%s',access_key_id=%s,secret_access_key=%s,region=%s:%s",
		store.Address, tests3.Access, tests3.Secret, tests3.Region, bucket.Name)
	cmd := exec.Command(program, "mount2", remote, dir, "--read-only", "--config", "/dev/null")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	name := filepath.Join(dir, info.Key)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := poll.Until(ctx, func() (bool, error) { _, err := os.Stat(name); return err == nil, nil }); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), large/2+12345); err != nil {
		b.Fatal(err)
	}
	t.row("rclone: first byte", "%.1f ms", time.Since(begin).Seconds()*1e3)
	var times, rates []float64
	const reads = 100
	for range reads {
		begin := time.Now()
		if _, err := f.ReadAt(make([]byte, 4096), rand.Int64N(large/4096)*4096); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin).Seconds()*1e3)
	}
	f.Close()
	slices.Sort(times)
	t.row("rclone: random 4 KB", "median %.2f ms, 99 %% %.2f ms", times[reads/2], times[reads*99/100])
	for range 3 {
		forget(b, name)
		rates = append(rates, readAll(b, name)/1e6)
	}
	slices.Sort(rates)
	s := &server{b: b, pid: cmd.Process.Pid}
	t.row("rclone: in order", "%.0f MB/s", rates[1])
	t.row("rclone: memory after it", "%.1f MB, at most %.1f MB", s.memory("VmRSS"), s.memory("VmHWM"))
	t.row("rclone: version", "%s", version(b, program))
}

// version returns that of the program's module.
func version(b *testing.B, program string) string {
	b.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		b.Fatal(err)
	}
	const module = "github.com/rclone/rclone"
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			return m.Version
		}
	}
	return "unknown"
}
