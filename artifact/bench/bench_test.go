package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

const (
	large = 1 << 30 // the object that is read in order and at random, in bytes
	many  = 100     // objects that are open at the same time
	each  = 16 << 20
	limit = 24 << 20 // of the cache
	cores = 8        // ranges or objects that the plain download asks for at the same time
	span  = 8 << 20  // of a range of it
)

// served is what a process of its own serves, as its environment has it: a mount for each object, and one for all below
// a prefix.
type served struct {
	Address, Bucket string
	Objects         []object.Info
	Prefix          string
}

const environment = "ARTIFACT_BENCH"

func TestMain(m *testing.M) {
	if text := os.Getenv(environment); text != "" {
		if err := serve(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve serves each object over a descriptor, and prints the cache's sums when a line comes.
func serve(text string) error {
	var s served
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	transport, err := minio.DefaultTransport(false)
	if err != nil {
		return err
	}
	client, err := minio.NewCore(s.Address, &minio.Options{
		Creds: credentials.NewStaticV4("access-1", "secret-1", ""), Region: "us-east-1", Transport: transport, MaxRetries: 1,
	})
	if err != nil {
		return err
	}
	cache, err := object.NewCache(limit)
	if err != nil {
		return err
	}
	debug.SetGCPercent(25) // the collector's slack counts as memory
	for i, info := range s.Objects {
		o := cache.Open(object.Bucket{Client: client, Name: s.Bucket}, info)
		if _, err := mount.ServeFile(os.NewFile(uintptr(3+i), "fuse"), mount.File{Object: o}, slog.Default()); err != nil {
			return err
		}
	}
	if s.Prefix != "" {
		bucket, tree := object.Bucket{Client: client, Name: s.Bucket}, mount.Tree{Files: map[string]mount.File{}}
		for info, err := range bucket.List(context.Background(), s.Prefix) {
			if err != nil {
				return err
			}
			tree.Files[strings.TrimPrefix(info.Key, s.Prefix)] = mount.File{Object: cache.Open(bucket, info)}
		}
		if _, err := mount.ServeTree(os.NewFile(uintptr(3), "fuse"), tree, slog.Default()); err != nil {
			return err
		}
	}
	for line := []byte{0}; ; {
		if _, err := os.Stdin.Read(line); err != nil {
			return nil
		}
		if err := json.NewEncoder(os.Stdout).Encode(cache.Stats()); err != nil {
			return err
		}
	}
}

// server is a process that serves mounts.
type server struct {
	b     *testing.B
	paths []string
	pid   int
	ask   io.Writer
	tell  *json.Decoder
}

func start(b *testing.B, what served) *server {
	b.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), environment+"="+string(text))
	cmd.Stderr = os.Stderr
	s := &server{b: b}
	dir := b.TempDir()
	add := func(mode uint32) {
		target := filepath.Join(dir, fmt.Sprint(len(s.paths)))
		var err error
		if mode&unix.S_IFDIR != 0 {
			err = os.Mkdir(target, 0o700)
		} else {
			err = os.WriteFile(target, nil, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, testmount.Attach(b, target, mode))
		b.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
		s.paths = append(s.paths, target)
	}
	for range what.Objects {
		add(0o100644)
	}
	if what.Prefix != "" {
		add(0o40755)
	}
	defer func() {
		for _, device := range cmd.ExtraFiles {
			device.Close()
		}
	}()
	ask, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	tell, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ask.Close()
		_ = cmd.Wait()
	})
	s.pid, s.ask, s.tell = cmd.Process.Pid, ask, json.NewDecoder(tell)
	s.stats() // it serves
	return s
}

func (s *server) stats() object.Stats {
	s.b.Helper()
	var stats object.Stats
	if _, err := s.ask.Write([]byte{'\n'}); err != nil {
		s.b.Fatal(err)
	}
	if err := s.tell.Decode(&stats); err != nil {
		s.b.Fatal(err)
	}
	return stats
}

// processor returns how many seconds of a processor processes have used.
func processor(b *testing.B, pids ...int) (seconds float64) {
	b.Helper()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, field := range fields[11:13] { // user and kernel, in hundredths
			var ticks float64
			if _, err := fmt.Sscan(field, &ticks); err != nil {
				b.Fatal(err)
			}
			seconds += ticks / 100
		}
	}
	return seconds
}

// storeOf returns the process of the store, which is a child of this one.
func storeOf(b *testing.B) int {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range all {
		text, _ := os.ReadFile(name)
		var pid int
		if n, _ := fmt.Sscan(string(text), &pid); n == 1 && bytes.Contains(text, fmt.Appendf(nil, "(versitygw) S %d ", os.Getpid())) {
			return pid
		}
	}
	b.Fatal("the store's process is not found")
	return 0
}

// memory returns a value of the process's status, in MB.
func (s *server) memory(name string) float64 {
	s.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	var n float64
	if _, err := fmt.Sscanf(rest, "%f kB", &n); err != nil {
		s.b.Fatal(err)
	}
	return n / 1024
}

// endless gives bytes that do not repeat soon.
type endless struct{ *rand.ChaCha8 }

// table is what the benchmark prints.
type table struct {
	out  strings.Builder
	rows *tabwriter.Writer
}

func (t *table) row(name, format string, args ...any) {
	if t.rows == nil {
		t.rows = tabwriter.NewWriter(&t.out, 0, 0, 2, ' ', 0)
	}
	fmt.Fprintf(t.rows, "%s\t"+format+"\n", append([]any{name}, args...)...)
}

// download downloads an object by parallel ranges, and returns how many bytes came in a second.
func download(b *testing.B, bucket object.Bucket, info object.Info, to io.WriterAt) float64 {
	b.Helper()
	begin := time.Now()
	var all sync.WaitGroup
	next := make(chan int64)
	for range cores {
		all.Go(func() {
			p := make([]byte, 128<<10)
			for off := range next {
				var options minio.GetObjectOptions
				options.Set("Range", fmt.Sprintf("bytes=%d-%d", off, min(off+span, info.Size)-1))
				body, _, _, err := bucket.Client.GetObject(context.Background(), bucket.Name, info.Key, options)
				if err != nil {
					b.Error(err)
					continue
				}
				var w io.Writer = struct{ io.Writer }{io.Discard}
				if to != nil {
					w = struct{ io.Writer }{io.NewOffsetWriter(to, off)}
				}
				if _, err := io.CopyBuffer(w, body, p); err != nil {
					b.Error(err)
				}
				body.Close()
			}
		})
	}
	for off := int64(0); off < info.Size; off += span {
		next <- off
	}
	close(next)
	all.Wait()
	return float64(info.Size) / time.Since(begin).Seconds()
}

// readAll reads a file in order, and returns how many bytes came in a second.
func readAll(b *testing.B, name string) float64 {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	begin := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err != nil {
		b.Fatal(err)
	}
	return float64(n) / time.Since(begin).Seconds()
}

// forget removes the file from the kernel's page cache.
func forget(b *testing.B, name string) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkArtifact(b *testing.B) {
	store := testbucket.Start(b)
	bucket := store.Bucket(b)
	info := testbucket.PutFrom(b, bucket, "large", io.LimitReader(endless{rand.NewChaCha8([32]byte{})}, large), large)
	for b.Loop() {
		var t table
		s := start(b, served{Address: store.Address, Bucket: bucket.Name, Objects: []object.Info{info}})
		name := s.paths[0]

		before, begin := s.stats(), time.Now()
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, 1), large/2+12345); err != nil {
			b.Fatal(err)
		}
		t.row("first byte", "%.1f ms", time.Since(begin).Seconds()*1e3)
		begin = time.Now()
		for _, off := range []int64{0, large / 3, large - 1024} {
			if _, err := f.ReadAt(make([]byte, 1024), off); err != nil {
				b.Fatal(err)
			}
		}
		took, after := time.Since(begin), s.stats()
		t.row("1 KB at three offsets", "%.1f ms, %.2f MB moved", took.Seconds()*1e3, float64(after.Moved-before.Moved)/(1<<20))

		var times []float64
		before = after
		const reads = 500
		for range reads {
			off := rand.Int64N(large/4096) * 4096
			begin := time.Now()
			if _, err := f.ReadAt(make([]byte, 4096), off); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(begin).Seconds()*1e3)
		}
		slices.Sort(times)
		after = s.stats()
		t.row("random 4 KB", "median %.2f ms, 99 %% %.2f ms, %.2f MB moved", times[reads/2], times[reads*99/100], float64(after.Moved-before.Moved)/(1<<20))
		f.Close()

		const rounds = 5
		var rates, costs [3][]float64
		all := []int{os.Getpid(), s.pid, storeOf(b)}
		for range rounds { // in turns: the machine may be shared
			forget(b, name)
			for i, read := range []func() float64{
				func() float64 { return readAll(b, name) },
				func() float64 { return download(b, bucket, info, nil) },
				func() float64 {
					to, err := os.Create(filepath.Join(b.TempDir(), "copy"))
					if err != nil {
						b.Fatal(err)
					}
					defer os.Remove(to.Name())
					defer to.Close()
					return download(b, bucket, info, to)
				},
			} {
				before := processor(b, all...)
				rates[i] = append(rates[i], read()/1e6)
				costs[i] = append(costs[i], processor(b, all...)-before)
			}
		}
		for i, what := range []string{"in order, mounted", "plain download, discarded", "plain download, to a file"} {
			slices.Sort(rates[i])
			slices.Sort(costs[i])
			t.row(what, "%.0f MB/s, %.2f s of a processor, with the store's", rates[i][rounds/2], costs[i][rounds/2])
		}
		mounted, plain, filed := rates[0][rounds/2], rates[1][rounds/2], rates[2][rounds/2]
		t.row("ratio", "%.2f of discarded, %.2f of a file", mounted/plain, mounted/filed)
		t.row("memory after it", "%.1f MB, at most %.1f MB", s.memory("VmRSS"), s.memory("VmHWM"))
		b.ReportMetric(mounted/plain, "of-plain")
		beside(b, store, bucket, info, &t)
		manyObjects(b, store, bucket, &t)
		smallFiles(b, store, bucket, &t)
		largeTree(b, store, bucket, &t)
		t.rows.Flush()
		fmt.Printf("\n%s\n", &t.out)
	}
}

// manyObjects reads many objects at the same time.
func manyObjects(b *testing.B, store *testbucket.Server, bucket object.Bucket, t *table) {
	var objects []object.Info
	content := make([]byte, each)
	rand.NewChaCha8([32]byte{}).Read(content)
	for i := range many {
		objects = append(objects, testbucket.Put(b, bucket, fmt.Sprint("many-", i), content))
	}
	s := start(b, served{Address: store.Address, Bucket: bucket.Name, Objects: objects})
	t.row(fmt.Sprintf("memory, %d idle", many), "%.1f MB", s.memory("VmRSS"))
	var all sync.WaitGroup
	begin := time.Now()
	for _, name := range s.paths {
		all.Go(func() {
			got, err := os.ReadFile(name)
			if err != nil || !bytes.Equal(got, content) {
				b.Errorf("%s: read %d of %d: %v", name, len(got), len(content), err)
			}
		})
	}
	all.Wait()
	t.row(fmt.Sprintf("memory, %d read at once", many), "%.1f MB, at most %.1f MB, %.0f MB/s", s.memory("VmRSS"), s.memory("VmHWM"), many*each/1e6/time.Since(begin).Seconds())
}

// smallFiles lists and reads a tree.
func smallFiles(b *testing.B, store *testbucket.Server, bucket object.Bucket, t *table) {
	const files, size = 1000, 20 << 10
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	var objects []object.Info
	for i := range files {
		objects = append(objects, testbucket.Put(b, bucket, fmt.Sprintf("tree/%03d", i), content))
	}
	begin := time.Now()
	s := start(b, served{Address: store.Address, Bucket: bucket.Name, Prefix: "tree/"})
	entries, err := os.ReadDir(s.paths[0])
	if err != nil || len(entries) != files {
		b.Fatalf("%d entries, %v", len(entries), err)
	}
	t.row(fmt.Sprintf("tree of %d, start and list", files), "%.0f ms", time.Since(begin).Seconds()*1e3)
	rate := func(parallel int, read func(i int) (int, error)) float64 {
		var all sync.WaitGroup
		next := make(chan int)
		begin := time.Now()
		for range parallel {
			all.Go(func() {
				for i := range next {
					if n, err := read(i); err != nil || n != size {
						b.Errorf("read %d bytes: %v", n, err)
					}
				}
			})
		}
		for i := range files {
			next <- i
		}
		close(next)
		all.Wait()
		return files / time.Since(begin).Seconds()
	}
	read := func(dir string) func(i int) (int, error) {
		return func(i int) (int, error) {
			got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%03d", i)))
			return len(got), err
		}
	}
	parallel := rate(cores, read(s.paths[0]))
	plain := rate(cores, func(i int) (int, error) {
		body, _, _, err := bucket.Client.GetObject(context.Background(), bucket.Name, objects[i].Key, minio.GetObjectOptions{})
		if err != nil {
			return 0, err
		}
		defer body.Close()
		got, err := io.ReadAll(body)
		return len(got), err
	})
	s = start(b, served{Address: store.Address, Bucket: bucket.Name, Prefix: "tree/"})
	one := rate(1, read(s.paths[0]))
	t.row("files of 20 KB", "%d readers %.0f/s, plain download %.0f/s, ratio %.2f; one reader %.0f/s, ratio %.2f", cores, parallel, plain, parallel/plain, one, one/plain)
}

// largeTree lists a tree of many small objects, as "ls -lR" does.
func largeTree(b *testing.B, store *testbucket.Server, bucket object.Bucket, t *table) {
	const files = 10_000
	for i := range files {
		testbucket.Put(b, bucket, fmt.Sprintf("wide/%02d/%04d", i%100, i), []byte("content"))
	}
	begin := time.Now()
	s := start(b, served{Address: store.Address, Bucket: bucket.Name, Prefix: "wide/"})
	found := 0
	if err := filepath.WalkDir(s.paths[0], func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		found++
		_, err = e.Info()
		return err
	}); err != nil || found != files {
		b.Fatalf("%d of %d files: %v", found, files, err)
	}
	t.row(fmt.Sprintf("tree of %d, start, list and stat", files), "%.0f ms, %d requests", time.Since(begin).Seconds()*1e3, s.stats().Requests)
}
