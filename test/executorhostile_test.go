package test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testapiserver"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// bombs are archives that unpack to much more than they are, or that lead outside.
func bombs(t *testing.T) map[string]bomb {
	many := make([]tar.Header, 100_000)
	for i := range many {
		many[i] = tar.Header{Name: fmt.Sprintf("%07d", i)}
	}
	// Each link leads a path's length deeper than the one before.
	down := strings.Repeat("d/", 1000)
	deep := []tar.Header{{Name: down, Typeflag: tar.TypeDir}}
	for i := range 4 {
		link, target := fmt.Sprint("l", i), down
		if i > 0 {
			target = fmt.Sprint("l", i-1, "/", down)
		}
		deep = append(deep, tar.Header{Name: link, Typeflag: tar.TypeSymlink, Linkname: target}, tar.Header{Name: link + "/" + down, Typeflag: tar.TypeDir})
	}
	const token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	const full = "no space left on device"
	return map[string]bomb{
		"zeros":          {packedAll(t, tar.Header{Name: "x", Size: 64 << 20}), "", full},
		"zeros for ever": {strings.Repeat(packedMember(t, 4<<20), 1000), "", full},
		"a sparse file":  {packedSparse(t, 1<<50), "", full},
		"many entries":   {packedAll(t, many...), "", full},
		"deep folders":   {packedAll(t, deep...), "", ""},
		"two dots":       {packedAll(t, tar.Header{Name: "a"}, tar.Header{Name: "../../../../outside/x"}), "", "illegal file path"},
		"a link":         {packedAll(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/outside"}, tar.Header{Name: "l/x"}), "", "illegal symlink target"},
		"a link that leads outside only once it is resolved": {packedAll(t, tar.Header{Name: "a/b/up", Typeflag: tar.TypeSymlink, Linkname: ".."},
			tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a/b/up/../../../outside"}, tar.Header{Name: "l/x"}), "", "illegal file path after symlink resolution"},
		"a hard link that is written to": {packedAll(t, tar.Header{Name: "token", Typeflag: tar.TypeLink, Linkname: token}, tar.Header{Name: "token", Size: 1}), "", ""},
		"devices": {packedAll(t, tar.Header{Name: "zero", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}, tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8},
			tar.Header{Name: "fifo", Typeflag: tar.TypeFifo}, tar.Header{Name: "x"}), "", ""},
		"zip of zeros":          {zippedZeros(t, "x"), "zip", full},
		"zip of the same zeros": {zippedTwice(t, zippedZeros(t, "x"), 1000), "zip", full},
		"zip of many entries":   {zippedEntries(t, 50_000), "zip", full},
		"zip with two dots":     {zippedZeros(t, "../../../../outside/x"), "zip", "Illegal file path"},
	}
}

type bomb struct{ content, archive, message string }

const bombTemplate = `{"name":"t","inputs":{"artifacts":[{"name":"in","path":"/in",ARCHIVE"s3":{"key":"in"}}]},"outputs":{},"metadata":{},` +
	`"container":{"name":"","image":"x","resources":{}},"archiveLocation":{"archiveLogs":false,"s3":{"endpoint":"STORE","bucket":"bucket","region":"r","insecure":true,` +
	`"accessKeySecret":{"name":"s","key":"a"},"secretKeySecret":{"name":"s","key":"b"},"key":"w/w-1"}}}`

// downloads has init load the input artifacts.
var downloads = map[string]string{"wasm.shim/download-artifacts": "true"}

// An archive that is a bomb fails in words, within a small limit of memory and on a small volume, or unpacks to
// something that can be removed. Nothing outside is written, and the daemon does not grow.
func TestExecutorUnpacksBombs(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		for name, b := range bombs(t) {
			t.Run(name, func(t *testing.T) {
				store := serveObjects(t, map[string]string{"/bucket/in": b.content})
				p := ourExecutor.executorPod(t, node)
				p.annotations = downloads
				inputs, outside := p.withStore(len(b.content)+8<<20, 8000)
				p.opts = append(p.opts, oci.WithMemoryLimit(uint64(len(b.content))+64<<20))
				template := strings.ReplaceAll(bombTemplate, "STORE", store.Listener.Addr().String())
				if b.archive != "" {
					template = strings.Replace(template, "ARCHIVE", `"archive":{"`+b.archive+`":{}},`, 1)
				}
				initial := p.create("init", "ARGO_TEMPLATE="+strings.Replace(template, "ARCHIVE", "", 1))
				daemon := parentOf(t, initial.Pid())
				before := residentMost(t, daemon)
				initial.start()
				want := uint32(64)
				if b.message == "" {
					want = 0
				}
				initial.expectCode(want)
				if message := p.message(); !strings.Contains(message, b.message) || (message == "") != (want == 0) {
					t.Errorf("the termination message is %.500q", message)
				}
				if grown := residentMost(t, daemon) - before; grown > 8<<20 {
					t.Errorf("the daemon has grown by %d bytes", grown)
				}
				for _, dir := range []string{outside, p.staged} {
					if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
						t.Errorf("%s has %v, %v", dir, entries, err)
					}
				}
				if text, err := os.ReadFile(filepath.Join(p.files, "token")); err != nil || string(text) != testapiserver.Token {
					t.Errorf("the token is %q, %v", text, err)
				}
				entries, err := os.ReadDir(inputs)
				if err != nil || want != 0 && len(entries) > 0 {
					t.Errorf("of the artifact there are %v, %v", entries, err)
				}
				for _, e := range entries {
					if err := os.RemoveAll(filepath.Join(inputs, e.Name())); err != nil {
						t.Errorf("remove the artifact: %v", err)
					}
				}
			})
		}
	})
}

// beside starts an intruder in a mode, and puts the pod's next containers into its pid namespace.
func (p *executorPod) beside(mode ...string) (met *atomic.Int64) {
	p.t.Helper()
	namespace, met := startIntruder(p.t, mode...)
	p.opts = append(p.opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: namespace}))
	return met
}

// waiting runs the pod's wait container until it has reported.
func (p *executorPod) waiting() *task {
	p.t.Helper()
	before := len(p.api.Seen())
	wait := p.create("wait")
	wait.start()
	waitFor(p.t, func() bool { return len(p.api.Seen()) > before }, "the first report")
	return wait
}

// runArgoexec is a command of a native container that needs argoexec in the volume.
var runArgoexec = []string{argoDir + "/argoexec", "help"}

// In a pod whose containers share a pid namespace, a neighbour with the user and the capabilities of our program does
// not see init and wait, the exec that ends wait, and the exec that copies argoexec. So it can neither stop, kill and
// trace them, nor get at their files while they end.
func TestExecutorIsOutOfSight(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		p := ourExecutor.executorPod(t, node)
		met := p.beside("strike", "9", "20000")
		for range 3 {
			p.begin(setTemplate)
			wait := p.waiting()
			if code, printed := wait.finish(wait.exec([]string{"argoexec", "kill", "15", "1"}, nil)); code != 0 {
				t.Errorf("kill ended with %d and printed %q", code, printed)
			}
			wait.code()
			wait.remove()
		}
		wait := p.waiting()
		shared := p.opts
		p.opts = nil
		native, err := p.tryCreate(runArgoexec)
		if err != nil {
			t.Fatal(err)
		}
		native.start()
		native.expectCode(0)
		wait.expectStatus(client.Running)
		if n := met.Load(); n > 0 {
			t.Fatalf("the neighbour has met %d processes", n)
		}
		p.opts = shared
		for range 100 {
			if k, err := p.tryCreate([]string{"argoexec", "version"}); err == nil {
				_ = k.Start(k.ctx) // fails for one that was killed
			}
			if met.Load() > 0 {
				return
			}
		}
		t.Error("the neighbour meets no native container either: this test shows nothing")
	})
}

// promptly fails the test if do takes long.
func promptly(t *testing.T, what string, do func()) {
	t.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%s took %v", what, took)
	}
}

// strike sends a signal to each further process of a container, at a random time of its life, until stop is called.
func (k *task) strike(signal syscall.Signal, within time.Duration) (struck *atomic.Int64, stop func()) {
	struck = new(atomic.Int64)
	ended, done := make(chan struct{}), make(chan struct{})
	seen := map[string]bool{strconv.Itoa(int(k.Pid())): true}
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Microsecond):
			}
			for _, pid := range strings.Fields(k.limit("pids", "cgroup.procs", "cgroup.procs")) {
				if seen[pid] {
					continue
				}
				seen[pid] = true
				number, err := strconv.Atoi(pid)
				if err != nil {
					k.t.Error(err)
				}
				process, err := unix.PidfdOpen(number, 0)
				if err != nil {
					continue // it has ended
				}
				time.Sleep(rand.N(within))
				if unix.PidfdSendSignal(process, signal, nil, 0) == nil {
					struck.Add(1)
				}
				unix.Close(process)
			}
		}
	}()
	return struck, func() { close(ended); <-done }
}

// Somebody stops or kills the exec that copies argoexec at any instant. The creation of the native container then fails
// soon after its caller has given up, and the pod can be deleted. Nothing but the whole file ever has the name argoexec.
func TestExecutorWhoseCopyIsStruck(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
			t.Run(name, func(t *testing.T) {
				struck, copied := int64(0), 0
				for tries := launches(node.Version) / 2; tries > 0; {
					p := ourExecutor.executorPod(t, node)
					p.begin(setTemplate)
					wait := p.waiting()
					n, stop := wait.strike(signal, 80*time.Millisecond)
					p.patience = time.Second / 2
					for ; tries > 0 && !p.copies(); tries-- {
					}
					if tries--; tries >= 0 {
						copied++
					}
					stop()
					struck += n.Load()
					promptly(t, "the deletion of wait", wait.remove)
				}
				t.Logf("of the copies %d were struck, %d were made", struck, copied)
				if struck == 0 {
					t.Error("none was struck: this test shows nothing")
				}
			})
		}
	})
}

// copies runs a native container that needs argoexec, and reports whether it could be created.
func (p *executorPod) copies() bool {
	p.t.Helper()
	var native *task
	var err error
	promptly(p.t, "the creation", func() { native, err = p.tryCreate(runArgoexec) })
	if err == nil {
		native.start()
		native.expectCode(0) // it is whole
	} else if info, missing := os.Lstat(filepath.Join(p.volume, "argoexec")); missing == nil {
		// It was struck between the last step and its report.
		if source, err := os.Stat(realArgoexec(p.t)); err != nil || info.Mode() != 0o555 || info.Size() != source.Size() {
			p.t.Errorf("argoexec is %v of %d bytes, %v", info.Mode(), info.Size(), err)
		}
		if err := os.Remove(filepath.Join(p.volume, "argoexec")); err != nil {
			p.t.Fatal(err)
		}
	}
	if native != nil {
		promptly(p.t, "the deletion", native.remove)
	}
	return err == nil
}

// Our program does its work, or is killed, under any limit of memory: it never hangs, and leaves no file in part under
// its name. 8 MiB are enough on cgroup v1.
func TestExecutorWithLittleMemory(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		store := serveObjects(t, map[string]string{"/bucket/in": packedAll(t, tar.Header{Name: "x", Size: 64 << 20})})
		template := strings.ReplaceAll(bombTemplate, "STORE", store.Listener.Addr().String())
		template = strings.Replace(template, "ARCHIVE", "", 1)
		for _, limit := range []uint64{1 << 20, 2 << 20, 3 << 20, 4 << 20, 8 << 20} {
			t.Run(fmt.Sprint(limit>>20, " MiB"), func(t *testing.T) {
				p := ourExecutor.executorPod(t, node)
				p.annotations, p.opts = downloads, []oci.SpecOpts{oci.WithMemoryLimit(limit)}
				p.withSecrets()
				p.leave("ctr/main/stdout", "")
				p.leave("ctr/main/exitcode", "0")
				for _, command := range [][]string{{"init", "ARGO_TEMPLATE=" + template}, {"wait"}} {
					k := p.create(command[0], command[1:]...)
					code := uint32(137)
					err := k.Start(k.ctx)
					if err == nil {
						code = k.code()
					} else if !strings.Contains(err.Error(), "out of memory") {
						t.Errorf("the start of %s: %v", command[0], err)
					}
					lost := code == 2 && command[0] == "wait" // init was killed before it has written the template
					if code != 0 && (code != 137 && !lost || limit == 8<<20) {
						t.Errorf("%s ended with %d, %q; it printed %q", command[0], code, p.message(), k.output)
					}
					if stocks := k.stocks(); len(stocks) > 0 {
						t.Errorf("stock shims %v", stocks)
					}
				}
				if text, err := os.ReadFile(filepath.Join(p.volume, "template")); err == nil && string(text) != template {
					t.Errorf("the template is %.100q", text)
				}
			})
		}
	})
}

// withStore gives the pod's containers the secrets of a store, the folder /outside, and a tmpfs for input artifacts.
func (p *executorPod) withStore(size, files int) (inputs, outside string) {
	p.t.Helper()
	outside, inputs = p.t.TempDir(), p.t.TempDir()
	p.withSecrets()
	mountAt(p.t, "tmpfs", inputs, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, files))
	p.mounts = append(p.mounts,
		specs.Mount{Destination: "/argo/inputs/artifacts", Type: "bind", Source: inputs, Options: []string{"rbind", "rw"}},
		specs.Mount{Destination: "/outside", Type: "bind", Source: outside, Options: []string{"rbind", "rw"}},
	)
	return inputs, outside
}

// withSecrets gives the pod's containers the secrets of a store.
func (p *executorPod) withSecrets() {
	p.t.Helper()
	secret := p.t.TempDir()
	if err := errors.Join(os.WriteFile(secret+"/a", []byte("access"), 0o644), os.WriteFile(secret+"/b", []byte("secret"), 0o644)); err != nil {
		p.t.Fatal(err)
	}
	p.mounts = append(p.mounts, specs.Mount{Destination: "/argo/secret/s", Type: "bind", Source: secret, Options: []string{"rbind", "ro"}})
}

// temporaryName is what a file's name has in addition until the file is whole.
var temporaryName = regexp.MustCompile(`\.[A-Z2-7]{26}\b`)

// message returns the termination message of the last container that has left one.
func (p *executorPod) message() string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.files, "termination-log"))
	if err != nil {
		p.t.Fatal(err)
	}
	return temporaryName.ReplaceAllString(string(text), "")
}

// residentMost returns the most bytes of memory that a process has had so far.
func residentMost(t *testing.T, pid uint32) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	line := statusLines(string(text), []string{"VmHWM"})["VmHWM"]
	kilobytes, err := strconv.Atoi(strings.Fields(line)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// packedAll returns a tarball, compressed.
func packedAll(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var out bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(compressed)
	for _, h := range headers {
		h.Mode = 0o755
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(archive, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// packedMember returns a part of a tarball of many equal parts, compressed: a file without the end of the archive.
func packedMember(t *testing.T, size int64) string {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	if err := archive.WriteHeader(&tar.Header{Name: "x", Mode: 0o644, Size: 1 << 42}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(archive, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// packedSparse returns a tarball of a file that is all hole (GNU's sparse format 1.0), which package tar does not write.
func packedSparse(t *testing.T, size int64) string {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	block := func(kind byte, name, content string) {
		var header bytes.Buffer
		archive := tar.NewWriter(&header)
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		raw := header.Bytes()
		raw[156] = kind
		copy(raw[148:156], "        ")
		sum := 0
		for _, b := range raw[:512] {
			sum += int(b)
		}
		copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
		padded := content + strings.Repeat("\x00", -len(content)&511)
		if _, err := compressed.Write(append(raw[:512:512], padded...)); err != nil {
			t.Fatal(err)
		}
	}
	records := ""
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=x", fmt.Sprint("GNU.sparse.realsize=", size)} {
		n := len(r) + 2 // with the blank and the end of the line
		n += len(strconv.Itoa(n + 2))
		records += fmt.Sprintf("%d %s\n", n, r)
	}
	block('x', "x", records)
	block('0', "GNUSparseFile.0/x", "1\n"+fmt.Sprint(size)+"\n0\n"+strings.Repeat("\x00", 512))
	if _, err := compressed.Write(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	if err := compressed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// zippedZeros returns a zip file with a file of 64 MiB.
func zippedZeros(t *testing.T, name string) string {
	t.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	f, err := archive.Create(name)
	if err == nil {
		_, err = io.CopyN(f, zeros{}, 64<<20)
	}
	if err := errors.Join(err, archive.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// zippedEntries returns a zip file with n empty files.
func zippedEntries(t *testing.T, n int) string {
	t.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for i := range n {
		if _, err := archive.CreateHeader(&zip.FileHeader{Name: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// zippedTwice returns a zip file with one file whose list names it n times.
func zippedTwice(t *testing.T, file string, n int) string {
	t.Helper()
	const endSize = 22
	end := []byte(file[len(file)-endSize:])
	size, at := binary.LittleEndian.Uint32(end[12:]), binary.LittleEndian.Uint32(end[16:])
	entry := file[at : at+size]
	var list strings.Builder
	for i := range n {
		// A name of the same length, so that nothing else of the entry changes.
		list.WriteString(entry[:46] + string(rune('A'+i%26)) + entry[47:])
	}
	binary.LittleEndian.PutUint16(end[8:], uint16(n))
	binary.LittleEndian.PutUint16(end[10:], uint16(n))
	binary.LittleEndian.PutUint32(end[12:], uint32(list.Len()))
	return file[:at] + list.String() + string(end)
}

// hostileStores answer requests for an input artifact, by S3 unless the name begins with web.
func hostileStores(elsewhere string) map[string]hostileStore {
	const full = "no space left on device"
	xml := func(w http.ResponseWriter, code int, begin, again string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(code)
		_, err := io.WriteString(w, begin)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat(again, 1000))
		}
	}
	missing := func(next http.HandlerFunc) http.HandlerFunc { // so that the folder is listed
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("list-type") {
				next(w, r)
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}
	}
	page := func(more bool, keys ...string) string {
		text := `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType>`
		if more {
			text += `<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>`
		}
		for _, key := range keys {
			text += `<Contents><Key>` + key + `</Key><Size>1</Size></Contents>`
		}
		return text + `</ListBucketResult>`
	}
	folder := func(keys ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Query().Has("list-type"):
				fmt.Fprint(w, page(false, keys...))
			case r.URL.Path == "/bucket/in":
				w.WriteHeader(http.StatusNotFound)
			default:
				w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
				fmt.Fprint(w, "x")
			}
		}
	}
	body := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Length", strconv.Itoa(1<<50))
		if r.Method == http.MethodGet {
			_, _ = io.CopyN(w, zeros{}, 1<<50)
		}
	}
	headers := func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		line := strings.Repeat("X-Header: "+strings.Repeat("x", 1000)+"\r\n", 100)
		_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for err == nil {
			_, err = io.WriteString(conn, line)
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	return map[string]hostileStore{
		"endless object":  {answer: body, message: full},
		"endless headers": {answer: headers, message: "server response headers exceeded"},
		"endless refusal": {answer: missing(func(w http.ResponseWriter, r *http.Request) { xml(w, 403, "<Error><Code>x</Code>", "<a>b</a>") }), message: "the answer of the store is too long"},
		"endless page": {answer: missing(func(w http.ResponseWriter, r *http.Request) {
			xml(w, 200, "<ListBucketResult>", "<Contents><Key>in/x</Key></Contents>")
		}), message: "the answer of the store is too long"},
		"endless pages":     {answer: missing(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, page(true)) }), ends: true},
		"nothing, for ever": {answer: func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ends: true},
		"an object, byte by byte": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Header().Set("Content-Length", "1000000")
			for r.Method == http.MethodGet && r.Context().Err() == nil {
				fmt.Fprint(w, "x")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, ends: true},
		"key with two dots":       {answer: folder("in/../../../../outside/x"), message: "illegal file path: in/../../../../outside/x"},
		"key of two dots":         {answer: folder("in/.."), message: "illegal file path: in/.."},
		"key with a zero":         {answer: folder("in/a%00b"), message: "invalid argument"},
		"key with controls":       {answer: folder("in/a%0Ab%1B%5B2J"), message: ""},
		"long key":                {answer: folder("in/" + strings.Repeat("x", 5000)), message: "Object name cannot be longer"},
		"deep key":                {answer: folder("in/" + strings.Repeat("x/", 100000) + "x"), message: "Object name cannot be longer"},
		"file that is a folder":   {answer: folder("in/a", "in/a/b"), message: "file exists"},
		"the same file":           {answer: folder("in/a", "in/a", "in//a"), message: ""},
		"redirect":                {answer: redirect(elsewhere), message: "307"},
		"web: endless object":     {answer: body, message: full},
		"web: endless headers":    {answer: headers, message: "server response headers exceeded"},
		"web: redirect":           {answer: redirect(elsewhere), message: "", asked: true},
		"web: redirect to a file": {answer: redirect("file:///var/run/secrets/kubernetes.io/serviceaccount/token"), message: `unsupported protocol scheme "file"`},
		"web: redirects":          {answer: func(w http.ResponseWriter, r *http.Request) { redirect("/again")(w, r) }, message: "stopped after 10 redirects"},
		"web: nothing, for ever":  {answer: func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ends: true},
	}
}

type hostileStore struct {
	answer  http.HandlerFunc
	message string // of init, empty for success
	ends    bool   // only by SIGTERM
	asked   bool   // another server
}

const webInput = `"http":{"url":"http://STORE/x","auth":{"clientCert":{},"oauth2":{},"basicAuth":{"usernameSecret":{"name":"s","key":"a"},"passwordSecret":{"name":"s","key":"b"}}}}`

// A store that answers anything makes init fail in words, or lets it wait until it is ended. It takes little memory,
// writes nothing outside, and sends no credentials to another server.
func TestExecutorAtHostileStores(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		var mu sync.Mutex
		var asked []http.Header
		other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.Header)
		}))
		listener, err := net.Listen("tcp", "0.0.0.0:0") // also at 127.0.0.2, another host
		if err != nil {
			t.Fatal(err)
		}
		other.Listener.Close()
		other.Listener = listener
		other.Start()
		defer other.Close()
		for name, s := range hostileStores(fmt.Sprintf("http://127.0.0.2:%d/bucket/in", listener.Addr().(*net.TCPAddr).Port)) {
			t.Run(name, func(t *testing.T) {
				called := make(chan struct{}, 1000)
				store := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					select {
					case called <- struct{}{}:
					default:
					}
					s.answer(w, r)
				}))
				store.Config.ErrorLog = log.New(io.Discard, "", 0)
				store.Start()
				defer store.Close()
				defer store.CloseClientConnections()
				template := strings.Replace(bombTemplate, "ARCHIVE", "", 1)
				if strings.HasPrefix(name, "web") {
					template = strings.Replace(template, `"s3":{"key":"in"}`, webInput, 1)
				}
				p := ourExecutor.executorPod(t, node)
				p.annotations = downloads
				inputs, outside := p.withStore(8<<20, 1000)
				p.opts = append(p.opts, oci.WithMemoryLimit(64<<20))
				initial := p.create("init", "ARGO_TEMPLATE="+strings.ReplaceAll(template, "STORE", store.Listener.Addr().String()))
				initial.start()
				if s.ends {
					<-called
					time.Sleep(200 * time.Millisecond)
					kill(t, initial, syscall.SIGTERM)
				}
				promptly(t, name, func() {
					if code := initial.code(); (code == 0) != (s.message == "" && !s.ends) || code == 137 {
						t.Errorf("init ended with %d", code)
					}
				})
				if message := p.message(); !strings.Contains(message, s.message) || len(message) > 64<<10 {
					t.Errorf("the termination message is %.300q", message)
				}
				for _, dir := range []string{outside, p.staged} {
					if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
						t.Errorf("%s has %v, %v", dir, entries, err)
					}
				}
				if entries, err := os.ReadDir(inputs); err != nil || s.message != "" && len(entries) > 0 {
					t.Errorf("of the artifact there are %v, %v", entries, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if (len(asked) > 0) != s.asked || s.asked && asked[0].Get("Authorization") != "" {
					t.Errorf("another server was asked %q", asked)
				}
				asked = nil
			})
		}
	})
}
