package cgroup

import (
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func spec(path string, r *specs.LinuxResources) *specs.Spec {
	return &specs.Spec{Linux: &specs.Linux{CgroupsPath: path, Resources: r}}
}

func TestConfigPlace(t *testing.T) {
	type location struct{ path, parent, prefix, name string }
	for _, c := range []struct {
		cgroupsPath string
		systemd     bool
		want        location
	}{
		{"/kubepods/burstable/pod1/abc", false, location{path: "/kubepods/burstable/pod1/abc"}},
		{"/a/../../b//c/.", false, location{path: "/b/c"}},
		{"mine/../../abc", false, location{path: "abc"}},
		{"", false, location{name: "id"}},
		{"", true, location{prefix: "runc", name: "id"}},
		{"kubepods-pod1.slice:cri-containerd:abc", true, location{parent: "kubepods-pod1.slice", prefix: "cri-containerd", name: "abc"}},
		{"::abc", true, location{name: "abc"}},
	} {
		config, err := configure("id", spec(c.cgroupsPath, nil), c.systemd)
		if err != nil {
			t.Errorf("cgroupsPath %q: %v", c.cgroupsPath, err)
			continue
		}
		got := location{config.Path, config.Parent, config.ScopePrefix, config.Name}
		if got != c.want || config.Systemd != c.systemd {
			t.Errorf("cgroupsPath %q: got %+v, systemd %t, want %+v, systemd %t", c.cgroupsPath, got, config.Systemd, c.want, c.systemd)
		}
	}
	if _, err := configure("id", &specs.Spec{}, false); err != nil {
		t.Errorf("without linux: %v", err)
	}
}

func TestConfigRefusesPlaces(t *testing.T) {
	for _, c := range []struct {
		id, cgroupsPath string
		systemd         bool
	}{
		{"id", "/", false}, {"id", "/a/..", false}, {"id", "..", false}, {"id", ".", false},
		{"", "", false}, {"../id", "", false}, {"", "", true},
		{"id", "/a/b", true}, {"id", "a:b", true}, {"id", "a:b:c:d", true}, {"id", "a:b:", true}, {"id", "a.slice:b:../c", true},
	} {
		if _, err := configure(c.id, spec(c.cgroupsPath, nil), c.systemd); err == nil || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("id %q, cgroupsPath %q, systemd %t: got %v, want an error that names linux.cgroupsPath", c.id, c.cgroupsPath, c.systemd, err)
		}
	}
}

// everything sets each field that v1 and v2 share.
func everything() *specs.LinuxResources {
	throttle := []specs.LinuxThrottleDevice{{Rate: 1 << 20}}
	throttle[0].Major, throttle[0].Minor = 8, 16
	return &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rw"}},
		Memory: &specs.LinuxMemory{
			Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(32 << 20)),
			DisableOOMKiller: ptr(false), UseHierarchy: ptr(true), CheckBeforeUpdate: ptr(true),
			//lint:ignore SA1019 deprecated, and still sent
			Kernel: ptr(int64(-1)), KernelTCP: ptr(int64(0)),
		},
		CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(20000)),
			Cpus: "0-1", Mems: "0", Idle: ptr(int64(0)), RealtimeRuntime: ptr(int64(0)), RealtimePeriod: ptr(uint64(0)),
		},
		Pids: &specs.LinuxPids{Limit: ptr(int64(42))},
		BlockIO: &specs.LinuxBlockIO{
			Weight: ptr(uint16(200)), LeafWeight: ptr(uint16(0)),
			WeightDevice:            []specs.LinuxWeightDevice{{Weight: ptr(uint16(300))}},
			ThrottleReadBpsDevice:   throttle,
			ThrottleWriteBpsDevice:  throttle,
			ThrottleReadIOPSDevice:  throttle,
			ThrottleWriteIOPSDevice: throttle,
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Network:        &specs.LinuxNetwork{ClassID: ptr(uint32(0))},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_0": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(4))}},
	}
}

func TestResources(t *testing.T) {
	throttle := []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(8, 16, 1<<20)}
	want := &cgroups.Resources{
		Devices: []*devices.Rule{
			{Type: 'a', Major: -1, Minor: -1, Permissions: "rwm"},
			{Type: 'c', Major: 10, Minor: 229, Permissions: "rw", Allow: true},
		},
		Memory: 64 << 20, MemorySwap: 96 << 20, MemoryReservation: 32 << 20, MemoryCheckBeforeUpdate: true,
		CpuShares: 512, CpuWeight: cgroups.ConvertCPUSharesToCgroupV2Value(512),
		CpuQuota: 50000, CpuPeriod: 100000, CpuBurst: ptr(uint64(20000)), CPUIdle: ptr(int64(0)),
		CpusetCpus: "0-1", CpusetMems: "0", PidsLimit: ptr(int64(42)),
		BlkioWeight:                 200,
		BlkioWeightDevice:           []*cgroups.WeightDevice{cgroups.NewWeightDevice(0, 0, 300, 0)},
		BlkioThrottleReadBpsDevice:  throttle,
		BlkioThrottleWriteBpsDevice: throttle, BlkioThrottleReadIOPSDevice: throttle, BlkioThrottleWriteIOPSDevice: throttle,
		HugetlbLimit: []*cgroups.HugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Rdma:         map[string]cgroups.LinuxRdma{"mlx5_0": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(4))}},
	}
	for _, unified := range []bool{false, true} {
		got, err := resources(everything(), unified)
		if err != nil {
			t.Fatalf("v2 %t: %v", unified, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("v2 %t: got %+v\nwant %+v", unified, got, want)
		}
	}
}

// only holds the fields that exist on one hierarchy only. Each entry has a change
// to everything, and the field that the error names on the other hierarchy.
var only = []struct {
	unified bool
	field   string
	change  func(*specs.LinuxResources)
	result  func(*cgroups.Resources) bool
}{
	{false, "memory.swappiness", func(r *specs.LinuxResources) { r.Memory.Swappiness = ptr(uint64(10)) },
		func(r *cgroups.Resources) bool { return *r.MemorySwappiness == 10 }},
	{false, "memory.disableOOMKiller", func(r *specs.LinuxResources) { r.Memory.DisableOOMKiller = ptr(true) },
		func(r *cgroups.Resources) bool { return r.OomKillDisable }},
	{false, "cpu.realtimeRuntime", func(r *specs.LinuxResources) { r.CPU.RealtimeRuntime = ptr(int64(5)) },
		func(r *cgroups.Resources) bool { return r.CpuRtRuntime == 5 }},
	{false, "cpu.realtimePeriod", func(r *specs.LinuxResources) { r.CPU.RealtimePeriod = ptr(uint64(6)) },
		func(r *cgroups.Resources) bool { return r.CpuRtPeriod == 6 }},
	{false, "blockIO.leafWeight", func(r *specs.LinuxResources) { r.BlockIO.LeafWeight = ptr(uint16(7)) },
		func(r *cgroups.Resources) bool { return r.BlkioLeafWeight == 7 }},
	{false, "blockIO.weightDevice[0].leafWeight", func(r *specs.LinuxResources) { r.BlockIO.WeightDevice[0].LeafWeight = ptr(uint16(8)) },
		func(r *cgroups.Resources) bool { return r.BlkioWeightDevice[0].LeafWeight == 8 }},
	{false, "network.classID", func(r *specs.LinuxResources) { r.Network.ClassID = ptr(uint32(9)) },
		func(r *cgroups.Resources) bool { return r.NetClsClassid == 9 }},
	{false, "network.priorities", func(r *specs.LinuxResources) {
		r.Network.Priorities = []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}}
	}, func(r *cgroups.Resources) bool {
		return *r.NetPrioIfpriomap[0] == cgroups.IfPrioMap{Interface: "eth0", Priority: 3}
	}},
	{true, "unified", func(r *specs.LinuxResources) { r.Unified = map[string]string{"memory.high": "1"} },
		func(r *cgroups.Resources) bool { return r.Unified["memory.high"] == "1" }},
}

func TestResourcesOfOneHierarchy(t *testing.T) {
	for _, c := range only {
		given := everything()
		c.change(given)
		got, err := resources(given, c.unified)
		if err != nil || !c.result(got) {
			t.Errorf("%s: got %+v, %v where it exists", c.field, got, err)
		}
		if _, err := resources(given, !c.unified); err == nil || !strings.HasPrefix(err.Error(), "linux.resources."+c.field+": ") {
			t.Errorf("%s: got %v where it does not exist", c.field, err)
		}
	}
}

func TestResourcesRefused(t *testing.T) {
	for field, change := range map[string]func(*specs.LinuxResources){
		//lint:ignore SA1019 deprecated, and still sent
		"memory.kernel":       func(r *specs.LinuxResources) { r.Memory.Kernel = ptr(int64(1 << 20)) },
		"memory.kernelTCP":    func(r *specs.LinuxResources) { r.Memory.KernelTCP = ptr(int64(1 << 20)) },
		"memory.useHierarchy": func(r *specs.LinuxResources) { r.Memory.UseHierarchy = ptr(false) },
		"memory.swap":         func(r *specs.LinuxResources) { r.Memory.Swap = ptr(int64(1 << 20)) },
		"devices[1].type":     func(r *specs.LinuxResources) { r.Devices[1].Type = "p" },
		"devices[0].access":   func(r *specs.LinuxResources) { r.Devices[0].Access = "" },
		"devices[1].access":   func(r *specs.LinuxResources) { r.Devices[1].Access = "rx" },
	} {
		given := everything()
		change(given)
		if _, err := configure("id", spec("/x", given), false); err == nil || !strings.HasPrefix(err.Error(), "linux.resources."+field+": ") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// TestEveryFieldIsKnown fails when a newer runtime spec has a new field: decide
// whether to support or to refuse it, then add it here.
func TestEveryFieldIsKnown(t *testing.T) {
	for _, c := range []struct {
		of   any
		want string
	}{
		{specs.LinuxResources{}, "Devices Memory CPU Pids BlockIO HugepageLimits Network Rdma Unified"},
		{specs.LinuxMemory{}, "Limit Reservation Swap Kernel KernelTCP Swappiness DisableOOMKiller UseHierarchy CheckBeforeUpdate"},
		{specs.LinuxCPU{}, "Shares Quota Burst Period RealtimeRuntime RealtimePeriod Cpus Mems Idle"},
		{specs.LinuxPids{}, "Limit"},
		{specs.LinuxBlockIO{}, "Weight LeafWeight WeightDevice ThrottleReadBpsDevice ThrottleWriteBpsDevice ThrottleReadIOPSDevice ThrottleWriteIOPSDevice"},
		{specs.LinuxHugepageLimit{}, "Pagesize Limit"},
		{specs.LinuxNetwork{}, "ClassID Priorities"},
		{specs.LinuxRdma{}, "HcaHandles HcaObjects"},
		{specs.LinuxDeviceCgroup{}, "Allow Type Major Minor Access"},
	} {
		var names []string
		for _, field := range reflect.VisibleFields(reflect.TypeOf(c.of)) {
			names = append(names, field.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%T has %s, decided about are %s", c.of, got, c.want)
		}
	}
}

func TestDefaultDevices(t *testing.T) {
	s := spec("/x", nil)
	all := len(defaultDevices(s))
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null"}, {Path: "/dev/fuse"}}
	rules := defaultDevices(s)
	if len(rules) != all-1 {
		t.Errorf("a device of the spec's own leaves %d default rules of %d", len(rules), all)
	}
	for _, rule := range rules {
		if rule.Major == 1 && rule.Minor == 3 {
			t.Error("/dev/null of the spec has a default rule too")
		}
	}
}

func TestCheckControllers(t *testing.T) {
	given := everything()
	r, err := resources(given, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, missing := range []string{"memory", "cpu", "pids", "hugetlb", "rdma"} {
		err := checkControllers(r, func(names ...string) bool { return names[0] != missing })
		want := map[string]string{"hugetlb": "hugepageLimits"}[missing]
		if want == "" {
			want = missing
		}
		if err == nil || !strings.HasPrefix(err.Error(), "linux.resources."+want+": ") {
			t.Errorf("without %s: got %v", missing, err)
		}
	}
	if err := checkControllers(&cgroups.Resources{}, func(...string) bool { return false }); err != nil {
		t.Errorf("no limits, no controllers: %v", err)
	}
}
