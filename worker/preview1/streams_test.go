package preview1_test

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// withStreams returns a guest whose root has the links of a container's /dev, and the other ends of its
// standard input and output.
func withStreams(t *testing.T) (c *caller, input, output *os.File) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	symlink(t, "/proc/self/fd", filepath.Join(dir, "dev/fd"))
	symlink(t, "/proc/self/fd/1", filepath.Join(dir, "dev/stdout"))
	symlink(t, "/dev/stdout", filepath.Join(dir, "var/log/app.log"))
	symlink(t, "../../dev/stdout", filepath.Join(dir, "var/log/relative.log"))
	theirInput, input := pipe(t)
	output, theirOutput := pipe(t)
	c = oursIn(t, preview1.World{Roots: []preview1.Root{{Path: dir, Name: "/"}}, Streams: [3]*os.File{theirInput, theirOutput, nil}})
	return c, input, output
}

// The names of a guest's own streams open these, as in a native container.
func TestStreamsByName(t *testing.T) {
	c, input, output := withStreams(t)
	for _, path := range []string{"dev/stdout", "dev/fd/1", "./dev//../dev/stdout", "proc/self/fd/1", "var/log/app.log", "var/log/relative.log"} {
		fd := c.opened(path, create|truncate, mayWrite, appends)
		if fd <= root {
			t.Errorf("%s is number %d", path, fd)
		}
		c.want(c.write(fd, "via "+path), success)
		c.want(c.call("fd_close", fd), success)
		text := make([]byte, len("via "+path))
		if _, err := io.ReadFull(output, text); err != nil || string(text) != "via "+path {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	if _, err := input.WriteString("typed"); err != nil {
		t.Fatal(err)
	}
	if text, err := c.read(c.opened("dev/stdin", 0, mayRead, 0), 100); err != success || text != "typed" {
		t.Errorf("/dev/stdin has %q, error %d", text, err)
	}
	for _, path := range []string{"dev/fd/77", "dev/fd/", "dev/fd/x", "dev/fd/-1", "dev/fd/1/x", "dev/fd/3", "dev/fd/99999999999999999999"} {
		if _, err := c.open(root, follow, path, 0, mayRead, 0); err != enoent && err != eloop {
			t.Errorf("%s: error %d", path, err)
		}
	}
	if _, err := c.status(follow, "dev/stdout"); err != success {
		t.Errorf("the status of /dev/stdout: error %d", err)
	}
	c.want(c.write(1, "still open"), success)
}

// A standard stream that does not wait for one guest still waits for those who share it.
func TestNonblockingStream(t *testing.T) {
	c, input, output := withStreams(t)
	c.want(c.call("fd_fdstat_set_flags", 0, nonblock), success)
	_, err := c.read(0, 10)
	c.want(err, eagain)
	flags, failure := unix.FcntlInt(input.Fd(), unix.F_GETFL, 0)
	if failure != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the pipe has flags %#x, %v", flags, failure)
	}
	if _, err := input.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if text, err := c.read(0, 10); err != success || text != "x" {
		t.Errorf("%q, error %d", text, err)
	}
	c.want(c.call("fd_fdstat_set_flags", 1, nonblock), success)
	c.vector(atData, 64<<10)
	total := 0
	for {
		err := c.call("fd_write", 1, atVector, 1, atResult)
		if err == eagain {
			break
		}
		c.want(err, success)
		total += int(c.number(atResult, 4))
	}
	if total != 64<<10 {
		t.Errorf("the pipe took %d bytes", total)
	}
	output.Close()
	c.want(c.call("fd_write", 1, atVector, 1, atResult), epipe)
}

// A stream that others have made non-blocking is waited for.
func TestBlockingOnANonblockingStream(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(ends[0]), "r"), ends[1]
	defer r.Close()
	c := oursIn(t, preview1.World{Streams: [3]*os.File{r, nil, nil}})
	unix.SetNonblock(ends[0], true) // Fd, which New calls, has ended it
	reading := make(chan struct{})
	go func() {
		<-reading
		unix.Write(w, []byte("late"))
		unix.Close(w)
	}()
	close(reading)
	if text, err := c.read(0, 10); err != success || text != "late" {
		t.Errorf("%q, error %d", text, err)
	}
	if text, err := c.read(0, 10); err != success || text != "" {
		t.Errorf("at the end: %q, error %d", text, err)
	}
}

type subscription struct {
	userdata uint64
	kind     byte
	fd       uint32 // or the clock
	timeout  uint64
	absolute bool
}

// poll polls and returns the user data of what has happened, with the error and the number of bytes.
func (c *caller) poll(subscriptions ...subscription) (map[uint64][2]int, errno) {
	c.t.Helper()
	for i, s := range subscriptions {
		at := c.bytes()[atData+48*i : atData+48*i+48]
		clear(at)
		binary.LittleEndian.PutUint64(at, s.userdata)
		at[8] = s.kind
		binary.LittleEndian.PutUint32(at[16:], s.fd)
		binary.LittleEndian.PutUint64(at[24:], s.timeout)
		if s.absolute {
			at[40] = 1
		}
	}
	const events = atData + 4096
	err := c.call("poll_oneoff", atData, events, uint64(len(subscriptions)), atResult)
	if err != success {
		return nil, err
	}
	got := map[uint64][2]int{}
	for i := range int(c.number(atResult, 4)) {
		got[c.number(events+32*i, 8)] = [2]int{int(c.number(events+32*i+8, 2)), int(c.number(events+32*i+16, 8))}
	}
	return got, err
}

func TestPoll(t *testing.T) {
	const clock, reads, writes = 0, 1, 2
	for name, test := range map[string]struct {
		typed         string
		subscriptions []subscription
		want          map[uint64][2]int
		err           errno
	}{
		"nothing":              {"", nil, nil, einval},
		"a clock":              {"", []subscription{{userdata: 7, kind: clock, fd: 1, timeout: 1000}}, map[uint64][2]int{7: {}}, 0},
		"a clock that is past": {"", []subscription{{userdata: 7, kind: clock, fd: 0, timeout: 1000, absolute: true}}, map[uint64][2]int{7: {}}, 0},
		"of two clocks the first": {"", []subscription{{userdata: 7, kind: clock, timeout: 1e15}, {userdata: 8, kind: clock, timeout: 1000}},
			map[uint64][2]int{8: {}}, 0},
		"no such clock":      {"", []subscription{{kind: clock, fd: 9}}, nil, einval},
		"no such kind":       {"", []subscription{{kind: 9}}, nil, einval},
		"room to write":      {"", []subscription{{userdata: 1, kind: reads, fd: 0}, {userdata: 2, kind: writes, fd: 1}}, map[uint64][2]int{2: {0, 1}}, 0},
		"no such descriptor": {"", []subscription{{userdata: 3, kind: reads, fd: 44}, {userdata: 4, kind: reads, fd: root}}, map[uint64][2]int{3: {8, 0}, 4: {8, 0}}, 0},
		"bytes to read": {"hello",
			[]subscription{{userdata: 5, kind: reads, fd: 0}, {userdata: 6, kind: clock, timeout: 1e15}}, map[uint64][2]int{5: {0, 5}}, 0},
	} {
		c, input, _ := withStreams(t)
		if _, err := input.WriteString(test.typed); err != nil {
			t.Fatal(err)
		}
		got, err := c.poll(test.subscriptions...)
		if err != test.err || len(got) != len(test.want) {
			t.Errorf("%s: %v, error %d", name, got, err)
		}
		for userdata, want := range test.want {
			if event, ok := got[userdata]; !ok || event != want {
				t.Errorf("%s: %v, want %v", name, got, test.want)
			}
		}
	}
}

// A stream keeps its rights when its number changes.
func TestRightsOfAStream(t *testing.T) {
	c, _, _ := withStreams(t)
	again := c.opened("dev/stdin", 0, mayRead, 0)
	c.want(c.call("fd_renumber", 0, 2), success)
	for _, fd := range []uint64{2, again} {
		c.want(c.call("fd_fdstat_get", fd, atResult), success)
		if rights := c.number(atResult+8, 8); rights != mayRead {
			t.Errorf("%d has the rights %#x", fd, rights)
		}
	}
}
