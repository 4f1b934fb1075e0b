package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// intruder is a running testdata/intruder in a pid namespace of its own.
type intruder struct {
	pid    int
	caught <-chan caught // closed when the intruder has ended
}

// caught is a child that was stopped before it executed its worker, with what the intruder could reach of it.
type caught struct {
	PID     int
	Reached []string
	Written bool
}

func startIntruder(t *testing.T, user int, more ...string) intruder {
	t.Helper()
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(buildTestdata(t, "intruder"), append([]string{fmt.Sprint(user), strings.TrimSpace(string(name))}, more...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := hear(t, output)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range lines {
		}
		_ = cmd.Wait()
	})
	if _, ok := <-lines; !ok {
		t.Fatal("the intruder does not start")
	}
	return intruder{cmd.Process.Pid, lines}
}

// hear returns the children that an intruder reports.
func hear(t *testing.T, output io.Reader) <-chan caught {
	lines := make(chan caught, 10000)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			var c caught
			if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
				t.Errorf("the intruder says %q", scanner.Text())
			}
			lines <- c
		}
	}()
	return lines
}

// launchIntruder launches the intruder in place of a worker. The intruder has the rights of a worker that has not
// confined itself yet, and no /proc.
func launchIntruder(t *testing.T, user uint32) (intruder, Child) {
	t.Helper()
	spec := probed(t)
	spec.Process.User.UID = user
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: usual, Permitted: usual, Effective: usual}
	if user != 0 {
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: usual}
	}
	output, told := pipe(t)
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, buildTestdata(t, "intruder")), Argv: []string{"intruder", "-", "-", "blind"},
		Files: []*os.File{open(t, os.DevNull), told, told},
	})
	if err != nil {
		t.Fatal(err)
	}
	told.Close()
	lines := hear(t, output)
	t.Cleanup(func() {
		_ = child.Signal(unix.SIGKILL)
		for range lines {
		}
		end(t, child)
	})
	if _, ok := <-lines; !ok {
		t.Fatal("the intruder does not start")
	}
	return intruder{child.PID, lines}, child
}

// usual are capabilities that a container has by default.
var usual = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"}

// beside returns the specification of a container in the intruder's pid namespace.
func (i intruder) beside(t *testing.T, user uint32) *specs.Spec {
	spec := probed(t)
	spec.Process.User.UID, spec.Root.Readonly = user, false // the same root file system serves many launches
	for n, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			spec.Linux.Namespaces[n].Path = fmt.Sprintf("/proc/%d/ns/pid", i.pid)
		}
	}
	// The child's default capabilities: without them the intruder would have more than the child.
	if user == 0 {
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: usual, Permitted: usual, Effective: usual}
	}
	return spec
}

// launchBusybox launches an applet of busybox in a new sandbox or, as an exec, in that of the child beside.
func launchBusybox(ctx context.Context, t *testing.T, spec *specs.Spec, beside *Child, l Launch, input *os.File, applet ...string) (Child, error) {
	t.Helper()
	l.Worker = open(t, "/bin/busybox")
	return launch(ctx, t, spec, beside, l, input, applet...)
}

func launch(ctx context.Context, t *testing.T, spec *specs.Spec, beside *Child, l Launch, input *os.File, argv ...string) (Child, error) {
	t.Helper()
	null := open(t, os.DevNull)
	var s *Sandbox
	var err error
	if beside != nil {
		s, err = Join(*beside)
	} else if s, err = New(t.TempDir(), ""); err == nil {
		err = s.MountRootfs(nil, spec.Root, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l.Spec, l.Process, l.Argv, l.Files = spec, spec.Process, argv, []*os.File{input, null, null}
	return s.Launch(ctx, l)
}

// end waits for a child.
func end(t *testing.T, child Child) {
	t.Helper()
	defer child.Close()
	for {
		if _, err := syscall.Wait4(child.PID, nil, 0, nil); err != syscall.EINTR {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// launches returns the number of launches of each kind for an intruder.
func launches() int {
	if testing.Short() {
		return 20
	}
	return 200
}

// Between clone and execve no process in the pid namespace can get into a child. This applies to a worker, an exec
// and a native program, and to every user. There are at least as many launches as rounds, and more until the
// intruder has caught enough children.
func TestLaunchingChildIsOutOfReach(t *testing.T) {
	const enough = 20
	rounds := launches()
	for _, user := range []int{0, 1000} {
		for name, way := range map[string]struct{ native, exec bool }{"worker": {}, "exec": {exec: true}, "native": {native: true}} {
			t.Run(fmt.Sprintf("%s of user %d", name, user), func(t *testing.T) {
				i := startIntruder(t, user)
				spec := i.beside(t, uint32(user))
				var container *Child
				if way.exec {
					input, hold, err := os.Pipe()
					if err != nil {
						t.Fatal(err)
					}
					defer input.Close()
					child, err := launchBusybox(t.Context(), t, spec, nil, Launch{}, input, "cat")
					if err != nil {
						t.Fatal(err)
					}
					defer end(t, child)
					defer hold.Close()
					container = &child
				}
				seen := 0
				for round := 0; round < rounds || seen < enough; round++ {
					if round == 100*rounds {
						t.Fatalf("the intruder has caught %d children in %d launches, too few to show anything", seen, round)
					}
					child, err := launchBusybox(t.Context(), t, spec, container, Launch{Native: way.native}, open(t, os.DevNull), "true")
					if err != nil {
						t.Fatal(err)
					}
					end(t, child)
					for len(i.caught) > 0 {
						c := <-i.caught
						seen++
						if len(c.Reached) > 0 {
							t.Fatalf("of process %d the intruder got %q", c.PID, c.Reached)
						}
					}
				}
				t.Logf("%d children were stopped before they had executed their program", seen)
			})
		}
	}
}

// Native code in place of a worker that has not confined itself cannot get into a child either. It must guess the
// child's pid. So Limit waits in each launch until the intruder has tried, and then fails: the child never executes
// its worker, and the test covers the time up to that point. On a kernel with Landlock, Landlock alone would be enough.
func TestLaunchingChildIsOutOfAWorkersReach(t *testing.T) {
	errCaught := errors.New("caught")
	for _, user := range []uint32{0, 1000} {
		i, container := launchIntruder(t, user)
		spec := i.beside(t, user)
		spec.Process.Capabilities = nil // no more than those of the intruder
		limit := func(pid int) error {
			inside := numberInside(t, pid)
			for c := range i.caught {
				switch {
				case c.PID != inside: // an earlier child, which has ended
				case len(c.Reached) > 0:
					return fmt.Errorf("of process %d the intruder got %q", inside, c.Reached)
				default:
					return errCaught
				}
			}
			return errors.New("the intruder has ended")
		}
		for name, way := range map[string]struct {
			native bool
			beside *Child
		}{"worker": {}, "exec": {beside: &container}, "native": {native: true}} {
			t.Run(fmt.Sprintf("%s of user %d", name, user), func(t *testing.T) {
				for range launches() {
					_, err := launchBusybox(t.Context(), t, spec, way.beside, Launch{Native: way.native, Limit: limit}, open(t, os.DevNull), "true")
					if !errors.Is(err, errCaught) {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// A native program that nobody may read is out of reach from its execve on, whatever it does itself and whatever
// capabilities its specification grants. It still has these. A readable one is not.
func TestUnreadableProgramIsOutOfReach(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "unreadable")
	if err := errors.Join(os.WriteFile(path, busybox, 0o111), os.Chmod(path, 0o111)); err != nil {
		t.Fatal(err)
	}
	try := func(t *testing.T, user int, program string, exec bool) caught {
		t.Helper()
		i := startIntruder(t, user, "patient")
		defer func() { _ = syscall.Kill(i.pid, syscall.SIGKILL) }() // it takes a whole processor
		spec := i.beside(t, uint32(user))
		var container *Child
		if exec {
			child := i.wait(t, spec, nil, program)
			container = &child
		}
		child := i.wait(t, spec, container, program)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child.PID))
		if err != nil {
			t.Fatal(err)
		}
		want := "CapEff:\t0000000000000000\n"
		if user == 0 {
			want = fmt.Sprintf("CapEff:\t%016x\n", 1<<unix.CAP_CHOWN|1<<unix.CAP_DAC_OVERRIDE|1<<unix.CAP_KILL|1<<unix.CAP_SETUID|1<<unix.CAP_NET_BIND_SERVICE)
		}
		if !strings.Contains(string(status), want) {
			t.Errorf("want %q in\n%s", want, status)
		}
		if exec {
			<-i.caught
		}
		return <-i.caught
	}
	for _, user := range []int{0, 1000} {
		for name, exec := range map[string]bool{"first": false, "exec": true} {
			t.Run(fmt.Sprintf("%s of user %d", name, user), func(t *testing.T) {
				for range launches() / 20 {
					if c := try(t, user, path, exec); len(c.Reached) > 0 {
						t.Fatalf("the intruder got %q", c.Reached)
					}
				}
				if c := try(t, user, "/bin/busybox", exec); len(c.Reached) == 0 {
					t.Error("the intruder cannot get into a readable program either: this test shows nothing")
				}
			})
		}
	}
}

// wait launches a program in the intruder's pid namespace that waits for the end of the test.
func (i intruder) wait(t *testing.T, spec *specs.Spec, beside *Child, program string) Child {
	t.Helper()
	input, hold := pipe(t)
	child, err := launch(t.Context(), t, spec, beside, Launch{Native: true, Worker: open(t, program)}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hold.Close()
		end(t, child)
	})
	return child
}

// numberInside returns a process's pid in its own pid namespace.
func numberInside(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "NSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	numbers := strings.Fields(line)
	inside, err := strconv.Atoi(numbers[len(numbers)-1])
	if err != nil {
		t.Fatal(err)
	}
	return inside
}

// canary is in the memory of the process that launches.
var canary = [8]byte{'u', 'n', 'h', 'a', 'r', 'm', 'e', 'd'}

// A process that may trace a child cannot get into the launching process through it. The child has only a copy of the
// memory, and the only open files of the host are those for the worker.
func TestChildHasNothingOfTheDaemon(t *testing.T) {
	host := open(t, "/sys/fs/cgroup")
	i := startIntruder(t, 0, "privileged", fmt.Sprint(uintptr(unsafe.Pointer(&canary))))
	spec := i.beside(t, 0)
	for seen := 0; seen < 20; {
		child, err := launchBusybox(t.Context(), t, spec, nil, Launch{}, open(t, os.DevNull), "true")
		if err != nil {
			t.Fatal(err)
		}
		end(t, child)
		for len(i.caught) > 0 {
			c := <-i.caught
			seen++
			if !c.Written || string(canary[:]) != "unharmed" {
				t.Fatalf("the intruder has written to the child: %v; our memory has %q", c.Written, canary)
			}
			for _, file := range c.Reached {
				own := file == os.DevNull || strings.HasPrefix(file, "pipe:")
				if !own && file != "anon_inode:[eventpoll]" && file != "anon_inode:[eventfd]" { // the child closes these first
					t.Errorf("the child has %s open, beside %s of ours", file, host.Name())
				}
			}
		}
	}
}

// A child that is stopped before its execve delays only its own launch, and is killed when the launch's context ends.
func TestStoppedChildIsGivenUp(t *testing.T) {
	i := startIntruder(t, 0, "hold")
	spec := i.beside(t, 0)
	other := probed(t)
	for {
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan caught, 1)
		go func() {
			select {
			case c := <-i.caught:
				// Nothing else waits for the child, not even the garbage collector, which stops the world.
				runtime.GC()
				child, err := launchBusybox(t.Context(), t, other, nil, Launch{}, open(t, os.DevNull), "true")
				if err != nil {
					t.Errorf("beside a stopped child: %v", err)
				} else {
					end(t, child)
				}
				stopped <- c
				cancel()
			case <-ctx.Done():
				close(stopped)
			}
		}()
		child, err := launchBusybox(ctx, t, spec, nil, Launch{}, open(t, os.DevNull), "true")
		cancel()
		c, held := <-stopped
		if !held {
			if err != nil {
				t.Fatal(err)
			}
			end(t, child)
			continue
		}
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("of a stopped child Launch says %v", err)
		}
		awaitGone(t, i, c.PID)
		return
	}
}

// awaitGone waits until a process of the intruder's namespace no longer exists.
func awaitGone(t *testing.T, i intruder, pid int) {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/root/proc/%d", i.pid, pid)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is there still", path)
		}
	}
}
