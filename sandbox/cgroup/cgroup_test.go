package cgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// These tests need root and the real kernel's cgroups, v1 or v2. SYSTEMD makes
// them use the systemd driver, which needs systemd as the first process.
var withSystemd = os.Getenv("CGROUP_TEST_SYSTEMD") != ""

const roleVariable = "CGROUP_TEST_ROLE"

func TestMain(m *testing.M) {
	role := map[string]func(){"wait": func() {}, "spin": spin, "hog": hog, "fork": fork, "devices": openDevices}[os.Getenv(roleVariable)]
	if role == nil {
		os.Exit(m.Run())
	}
	// The parent writes a byte when the process is in its cgroup.
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		os.Exit(1)
	}
	role()
	os.Exit(0)
}

// spin increments the counter in the file at descriptor 3.
func spin() {
	counter, err := mapCounter(3)
	if err != nil {
		os.Exit(1)
	}
	for {
		counter.Add(1)
	}
}

func mapCounter(fd int) (*atomic.Uint64, error) {
	memory, err := unix.Mmap(fd, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Uint64)(unsafe.Pointer(&memory[0])), nil
}

// hog takes memory until it is stopped.
func hog() {
	var kept [][]byte
	for len(kept) < 512 {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
	}
	fmt.Println(len(kept))
}

// fork starts five children that wait, and then waits for the end of its input.
func fork() {
	for range 5 {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), roleVariable+"=wait")
		if _, err := child.StdinPipe(); err != nil {
			os.Exit(1)
		}
		if err := child.Start(); err != nil {
			fmt.Println("error:", err)
			os.Exit(2)
		}
	}
	fmt.Println("forked")
	io.Copy(io.Discard, os.Stdin)
}

func openDevices() {
	for _, path := range []string{"/dev/null", "/dev/kmsg"} {
		f, err := os.Open(path)
		fmt.Println(path, err == nil, errors.Is(err, unix.EPERM))
		if err == nil {
			f.Close()
		}
	}
}

// child is a process of this test binary. It waits for letGo, then plays its role.
type child struct {
	*exec.Cmd
	stdin  io.WriteCloser
	output strings.Builder
}

func start(t *testing.T, role string, files ...*os.File) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe")}
	c.Env = append(os.Environ(), roleVariable+"="+role)
	c.ExtraFiles = files
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	return c
}

func (c *child) run(t *testing.T) *child {
	t.Helper()
	if c.Stdout == nil {
		c.Stdout = &c.output
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return c
}

func (c *child) letGo(t *testing.T) {
	t.Helper()
	if _, err := c.stdin.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
}

// killed waits for the end of c and fails unless SIGKILL was its cause.
func (c *child) killed(t *testing.T) {
	t.Helper()
	c.Wait()
	status := c.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("process %d ended with %v, want SIGKILL", c.Process.Pid, c.ProcessState)
	}
}

// testSpec returns a specification with a cgroup that only this test uses.
func testSpec(t *testing.T, r *specs.LinuxResources) *specs.Spec {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + "-" + strconv.Itoa(os.Getpid())
	if withSystemd {
		return spec("system.slice:cgrouptest:"+name, r)
	}
	return spec("/cgrouptest-"+name, r)
}

// create returns the cgroup of s. The test's cleanup removes it and checks that
// nothing is left.
func create(t *testing.T, s *specs.Spec) *Cgroup {
	t.Helper()
	config, err := configure("unused", s, withSystemd)
	if err != nil {
		t.Fatal(err)
	}
	c, err := fromConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	paths := c.Paths()
	t.Cleanup(func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		for controller, path := range paths {
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of controller %q is left: %v", path, controller, err)
			}
		}
	})
	return c
}

func add(t *testing.T, c *Cgroup, p *child) {
	t.Helper()
	if err := c.Add(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
}

// await polls until done returns true, and fails after three minutes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// limits returns limits that every node of the tests supports. The files below
// show them on v1 and v2.
func limits() *specs.LinuxResources {
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Reservation: ptr(int64(32 << 20))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(42))},
	}
}

type file struct{ controller, v1, v2 string }

var (
	memoryLimit = file{"memory", "memory.limit_in_bytes", "memory.max"}
	reservation = file{"memory", "memory.soft_limit_in_bytes", "memory.low"}
	pidsLimit   = file{"pids", "pids.max", "pids.max"}
	shares      = file{"cpu", "cpu.shares", "cpu.weight"}
	quota       = file{"cpu", "cpu.cfs_quota_us", "cpu.max"}
)

// expect checks the content of file f: it must be the string v1 on cgroup v1, v2
// on cgroup v2.
func expect(t *testing.T, c *Cgroup, f file, v1, v2 string) {
	t.Helper()
	controller, name, want := f.controller, f.v1, v1
	if c.unified {
		controller, name, want = "", f.v2, v2
	}
	path := c.Paths()[controller]
	got, err := os.ReadFile(filepath.Join(path, name))
	if err != nil {
		t.Error(err)
	} else if strings.TrimSpace(string(got)) != want {
		t.Errorf("%s is %q, want %q", name, strings.TrimSpace(string(got)), want)
	}
}

func weight(shares uint64) string {
	return strconv.FormatUint(cgroups.ConvertCPUSharesToCgroupV2Value(shares), 10)
}

func TestLimitsAreSetAndUpdated(t *testing.T) {
	c := create(t, testSpec(t, limits()))
	add(t, c, start(t, "wait").run(t))
	expect(t, c, memoryLimit, "67108864", "67108864")
	expect(t, c, reservation, "33554432", "33554432")
	expect(t, c, pidsLimit, "42", "42")
	expect(t, c, shares, "512", weight(512))
	expect(t, c, quota, "50000", "50000 100000")
	if limit, ok := c.MemoryLimit(); limit != 64<<20 || !ok {
		t.Errorf("MemoryLimit is %d, %t", limit, ok)
	}
	if err := c.set(c.config.Resources); err != nil {
		t.Errorf("set again: %v", err)
	}

	// As in an in-place resize by the kubelet: first memory, then CPU.
	update(t, c, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))}})
	expect(t, c, memoryLimit, "134217728", "134217728")
	expect(t, c, reservation, "33554432", "33554432")
	expect(t, c, quota, "50000", "50000 100000")
	update(t, c, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(70000))}})
	expect(t, c, quota, "70000", "70000 100000")
	expect(t, c, shares, "512", weight(512))
	update(t, c, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(2048)), Quota: ptr(int64(-1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))}})
	expect(t, c, shares, "2048", weight(2048))
	expect(t, c, quota, "-1", "max 100000")
	expect(t, c, pidsLimit, "50", "50")
	expect(t, c, memoryLimit, "134217728", "134217728")
	update(t, c, &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(50000))}})
	expect(t, c, quota, "-1", "max 50000")
	update(t, c, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}})
	if limit, ok := c.MemoryLimit(); ok {
		t.Errorf("MemoryLimit is %d after it was lifted", limit)
	}
	update(t, c, &specs.LinuxResources{})
	update(t, c, limits())
	expect(t, c, memoryLimit, "67108864", "67108864")
}

func update(t *testing.T, c *Cgroup, r *specs.LinuxResources) {
	t.Helper()
	if err := c.Update(r); err != nil {
		t.Fatal(err)
	}
}

// TestUpdateRaisesSwap uses the limits that CRI sets for a container without swap:
// the total of memory and swap is equal to the memory limit.
func TestUpdateRaisesSwap(t *testing.T) {
	swap := func(bytes int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bytes, Swap: &bytes}}
	}
	c := create(t, testSpec(t, swap(64<<20)))
	add(t, c, start(t, "wait").run(t))
	update(t, c, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(96 << 20))}})
	expect(t, c, memoryLimit, "100663296", "100663296")
	update(t, c, &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(128 << 20))}})
	update(t, c, swap(128<<20))
	update(t, c, swap(80<<20))
	expect(t, c, memoryLimit, "83886080", "83886080")
	if !c.unified {
		expect(t, c, file{"memory", "memory.memsw.limit_in_bytes", ""}, "83886080", "")
	}
	err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(1 << 20))}})
	if err == nil || !strings.HasPrefix(err.Error(), "linux.resources.memory.swap: ") {
		t.Errorf("a total below the memory limit: %v", err)
	}
	expect(t, c, memoryLimit, "83886080", "83886080")
}

func TestUpdateAndDevices(t *testing.T) {
	given := []specs.LinuxDeviceCgroup{{Access: "rwm"}}
	c := create(t, testSpec(t, &specs.LinuxResources{Devices: given}))
	add(t, c, start(t, "wait").run(t))
	update(t, c, &specs.LinuxResources{Devices: given})
	other := []specs.LinuxDeviceCgroup{{Access: "rwm", Allow: true}}
	for range 2 {
		if err := c.Update(&specs.LinuxResources{Devices: other}); err == nil || !strings.Contains(err.Error(), "linux.resources.devices: ") {
			t.Errorf("other devices: got %v", err)
		}
	}
	update(t, c, &specs.LinuxResources{Devices: given, Pids: &specs.LinuxPids{Limit: ptr(int64(7))}})
	expect(t, c, pidsLimit, "7", "7")
}

// TestKernelsRefusalNamesTheField uses a value that only the kernel refuses.
func TestKernelsRefusalNamesTheField(t *testing.T) {
	noSuchDevice := specs.LinuxThrottleDevice{Rate: 1 << 20}
	noSuchDevice.Major, noSuchDevice.Minor = 4000, 4000
	c := create(t, testSpec(t, &specs.LinuxResources{
		BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{noSuchDevice}}}))
	err := c.Add(start(t, "wait").run(t).Process.Pid)
	if err == nil || !strings.Contains(err.Error(), "linux.resources.blockIO throttle: ") {
		t.Errorf("got %v", err)
	}
}

func TestDevices(t *testing.T) {
	c := create(t, testSpec(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}))
	p := start(t, "devices").run(t)
	add(t, c, p)
	p.letGo(t)
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := p.output.String(), "/dev/null true false\n/dev/kmsg false true\n"; got != want {
		t.Errorf("opened (device, success, denied):\n%swant:\n%s", got, want)
	}
}

func TestPidsAndKill(t *testing.T) {
	c := create(t, testSpec(t, nil))
	p := start(t, "fork")
	output, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout = writer
	p.run(t)
	writer.Close()
	add(t, c, p)
	second := start(t, "wait").run(t)
	add(t, c, second)
	p.letGo(t)
	line := make([]byte, 7)
	if _, err := io.ReadFull(output, line); err != nil || string(line) != "forked\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	pids, err := c.Pids()
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) != 7 || !slices.Contains(pids, p.Process.Pid) || !slices.Contains(pids, second.Process.Pid) {
		t.Errorf("the cgroup has %v, want 7 with %d and %d", pids, p.Process.Pid, second.Process.Pid)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if pids, err := c.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("after Kill the cgroup has %v, %v", pids, err)
	}
	p.killed(t)
	second.killed(t)
	if err := c.Kill(); err != nil {
		t.Errorf("kill nobody: %v", err)
	}
	output.Close()
}

// TestPidsLimit starts a process that forks more children than its limit allows.
func TestPidsLimit(t *testing.T) {
	c := create(t, testSpec(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(6))}}))
	p := start(t, "fork").run(t)
	add(t, c, p)
	p.letGo(t)
	p.stdin.Close()
	// A Go program has more than one thread: 6 tasks are not enough for the process
	// and five children.
	if err := p.Wait(); err == nil || strings.Contains(p.output.String(), "forked") {
		t.Errorf("a process with a limit of 6 tasks ended with %v: %s", p.ProcessState, p.output.String())
	}
}

// The room is the cgroup's limit minus the tasks in it. Without a limit, one of a cgroup above decides, if any.
func TestPidsRoom(t *testing.T) {
	const limit = 100
	t.Run("limited", func(t *testing.T) {
		c := create(t, testSpec(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(limit))}}))
		add(t, c, start(t, "wait").run(t))
		if room, where := c.pidsRoom(); room >= limit || room < limit/2 || filepath.Base(where) != filepath.Base(c.name()) {
			t.Errorf("a limit of %d leaves %d in %s", limit, room, where)
		}
	})
	t.Run("free", func(t *testing.T) {
		c := create(t, testSpec(t, nil))
		add(t, c, start(t, "wait").run(t))
		if room, where := c.pidsRoom(); room < limit || filepath.Base(where) == filepath.Base(c.name()) {
			t.Errorf("no limit leaves %d in %q", room, where)
		}
	})
}

// TestFreeze checks that a frozen process stops counting while another one counts.
func TestFreeze(t *testing.T) {
	c := create(t, testSpec(t, nil))
	frozen, frozenCount := spinner(t)
	add(t, c, frozen)
	_, otherCount := spinner(t)
	advance := func(counter *atomic.Uint64, by uint64) {
		t.Helper()
		from := counter.Load()
		await(t, "a process to count", func() bool { return counter.Load() > from+by })
	}
	advance(frozenCount, 1000)
	if err := c.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := frozenCount.Load()
	advance(otherCount, 10_000_000)
	if after := frozenCount.Load(); after != before {
		t.Errorf("a frozen process counted from %d to %d", before, after)
	}
	if err := c.Freeze(context.Background()); err != nil {
		t.Errorf("freeze what is frozen: %v", err)
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	advance(frozenCount, 1000)
	if err := c.Thaw(); err != nil {
		t.Errorf("thaw what is not frozen: %v", err)
	}

	if err := c.Freeze(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatalf("kill what is frozen: %v", err)
	}
	frozen.killed(t)
}

// Frozen returns false where there is no freezer.
func TestFrozenWithoutAFreezer(t *testing.T) {
	frozen, err := create(t, testSpec(t, nil)).Frozen()
	if frozen || err != nil {
		t.Errorf("got %t, %v", frozen, err)
	}
}

// spinner starts a process that counts. It is in the cgroups before it counts.
func spinner(t *testing.T, in ...*Cgroup) (*child, *atomic.Uint64) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "counter"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(binary.NativeEndian.AppendUint64(nil, 0)); err != nil {
		t.Fatal(err)
	}
	counter, err := mapCounter(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "spin", f).run(t)
	for _, c := range in {
		add(t, c, p)
	}
	p.letGo(t)
	return p, counter
}

// TestFreezeGivesUp calls Freeze with a context that has ended: no process stays
// frozen.
func TestFreezeGivesUp(t *testing.T) {
	c := create(t, testSpec(t, nil))
	p, counter := spinner(t)
	add(t, c, p)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// The freeze may finish before Freeze looks at the context: no error then.
	if err := c.Freeze(ctx); err == nil {
		if err := c.Thaw(); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	from := counter.Load()
	await(t, "the process to go on", func() bool { return counter.Load() > from+1000 })
}

func TestOOM(t *testing.T) {
	limit := int64(48 << 20)
	c := create(t, testSpec(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}))
	p := start(t, "hog").run(t)
	add(t, c, p)
	// This process keeps the cgroup: systemd removes an empty one.
	add(t, c, start(t, "wait").run(t))
	if kills, err := c.OOMKills(); err != nil || kills != 0 {
		t.Fatalf("before: %d out-of-memory kills, %v", kills, err)
	}
	p.letGo(t)
	p.killed(t)
	if kills, err := c.OOMKills(); err != nil || kills != 1 {
		t.Errorf("after: %d out-of-memory kills, %v, want 1", kills, err)
	}
}

func TestStats(t *testing.T) {
	c := create(t, testSpec(t, limits()))
	// The cgroup does not count what a process used before it was added.
	_, counter := spinner(t, c)
	await(t, "the process to count", func() bool { return counter.Load() > 10_000_000 })
	// v1 counts processor time in ticks: wait for one at least.
	await(t, "the statistics to show processor time", func() bool {
		metrics, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		switch m := metrics.(type) {
		case *stats1.Metrics:
			if c.unified {
				t.Fatal("v1 statistics on v2")
			}
			if m.Memory.Usage.Limit != 64<<20 || m.Pids.Limit != 42 || m.Pids.Current == 0 || m.Memory.Usage.Usage == 0 {
				t.Fatalf("got %+v", m)
			}
			return m.CPU.Usage.Total > 0
		case *stats2.Metrics:
			if !c.unified {
				t.Fatal("v2 statistics on v1")
			}
			if m.Memory.UsageLimit != 64<<20 || m.Pids.Limit != 42 || m.Pids.Current == 0 {
				t.Fatalf("got %+v", m)
			}
			return m.CPU.UsageUsec > 0
		default:
			t.Fatalf("got a %T", metrics)
		}
		return true
	})
}

func TestAddRefusesAnotherContainersCgroup(t *testing.T) {
	s := testSpec(t, nil)
	first := create(t, s)
	add(t, first, start(t, "wait").run(t))
	config, err := configure("unused", s, withSystemd)
	if err != nil {
		t.Fatal(err)
	}
	second, err := fromConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	intruder := start(t, "wait").run(t)
	if err := second.Add(intruder.Process.Pid); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("got %v", err)
	}
	if err := second.Destroy(); err != nil {
		t.Error(err)
	}
	if pids, err := first.Pids(); err != nil || len(pids) != 1 {
		t.Errorf("the first container's cgroup has %v, %v", pids, err)
	}
}

// TestLoad does the same as the shim's delete after its daemon was killed.
func TestLoad(t *testing.T) {
	s := testSpec(t, limits())
	if _, err := Load("unused", s, withSystemd); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load what does not exist: %v", err)
	}
	c := create(t, s)
	p := start(t, "wait").run(t)
	add(t, c, p)
	//lint:ignore SA1019 deprecated, and still sent
	s.Linux.Resources.Memory.Kernel = ptr(int64(1)) // a limit that configure refuses
	loaded, err := Load("unused", s, withSystemd)
	if err != nil {
		t.Fatal(err)
	}
	second := start(t, "wait").run(t)
	add(t, loaded, second)
	if pids, err := c.Pids(); err != nil || len(pids) != 2 {
		t.Errorf("the cgroup has %v, %v, want both processes", pids, err)
	}
	if err := loaded.Destroy(); err != nil {
		t.Fatal(err)
	}
	p.killed(t)
	second.killed(t)
	if _, err := Load("unused", s, withSystemd); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load what was removed: %v", err)
	}
	if err := loaded.Destroy(); err != nil {
		t.Errorf("destroy again: %v", err)
	}
}

// TestDestroySubgroups makes a cgroup below, as a guest with a writable cgroup
// mount can.
func TestDestroySubgroups(t *testing.T) {
	c := create(t, testSpec(t, nil))
	p := start(t, "wait").run(t)
	add(t, c, p)
	for _, path := range c.Paths() {
		sub := filepath.Join(path, "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	devices := c.Paths()["devices"]
	if c.unified {
		devices = c.Paths()[""]
	}
	if err := os.WriteFile(filepath.Join(devices, "sub", "cgroup.procs"), []byte(strconv.Itoa(p.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	p.killed(t)
}

func TestNewRefusesMissingControllers(t *testing.T) {
	config, err := configure("unused", testSpec(t, &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"none": {}}}), withSystemd)
	if err != nil {
		t.Fatal(err)
	}
	c, err := fromConfig(config)
	if has, haveErr := os.ReadFile("/proc/cgroups"); haveErr == nil && strings.Contains(string(has), "\nrdma\t") {
		if err != nil {
			t.Errorf("the node has rdma: %v", err)
		}
		return
	}
	if c != nil || err == nil || !strings.HasPrefix(err.Error(), "linux.resources.rdma: ") {
		t.Errorf("got %v, %v", c, err)
	}
}
