package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/install"
)

const installAndRestart = install.BinaryName + " install, then systemctl restart containerd"

// checkRuntime checks the configuration that containerd has read, not its files.
func checkRuntime(_ context.Context, n *node) Result {
	c := n.containerd
	switch {
	case c.err != nil:
		return unknown("containerd does not answer", "see the first row")
	case c.criErr != nil:
		return warn("containerd serves no CRI: "+c.criErr.Error(),
			"nothing for ctr; for Kubernetes take cri out of disabled_plugins in "+c.configFile())
	}
	if err := install.CheckRunning(c.cri, install.RunningConfigPath(c.cri)); err != nil {
		return wrong(err.Error(), installAndRestart)
	}
	return ok(fmt.Sprintf("containerd offers %q as %s", install.Handler, install.RuntimeType))
}

func (c containerd) configFile() string {
	if c.config == "" {
		return "containerd's configuration"
	}
	return c.config
}

// checkPulls asks containerd's binary about its files, because the running containerd does not say
// how it pulls.
func checkPulls(ctx context.Context, n *node) Result {
	c := n.containerd
	switch {
	case c.err != nil:
		return unknown("containerd does not answer", "see the first row")
	case c.criErr != nil:
		return ok("ctr pulls with --platform, and from 2.3 on with --local")
	case !c.atLeast(2, 3):
		return ok("this containerd unpacks images of every platform")
	case c.pid == 0:
		return unknown("containerd's configuration file", "run this command as root, outside of containers")
	}
	pulls, err := install.AskPulls(ctx, c.exe, c.config)
	if err != nil {
		return unknown(err.Error(), `look for use_local_image_pull = true in what "containerd config dump" prints (docs/install.md, Pulling images)`)
	}
	const lost = "images of platform wasi/wasm, wasip1/wasm and wasip2/wasm with layers of files are not unpacked"
	switch {
	case !pulls.Local && pulls.Verifiers != "":
		return warn(lost+", because there are image verifiers in "+pulls.Verifiers,
			"push such images for platform linux/wasm, or with a Wasm layer (docs/install.md, Pulling images)")
	case !pulls.Local:
		return warn(lost, installAndRestart+" (docs/install.md, Pulling images)")
	}
	if info, err := os.Stat(c.config); err == nil && !c.started.IsZero() && info.ModTime().After(c.started) {
		return warn(c.config+" is newer than the containerd that runs", "systemctl restart containerd")
	}
	return ok("CRI unpacks images of every platform")
}

// configPath is the shim's own configuration file, as the runtime's entry names it.
func (n *node) configPath() string {
	if path := install.RunningConfigPath(n.containerd.cri); path != "" {
		return path
	}
	return config.DefaultPath
}

// shimConfig reads that file as the shim will.
func (n *node) shimConfig() (config.Config, error) {
	path := n.path(n.configPath())
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && n.configPath() != config.DefaultPath {
		return config.Config{}, err
	}
	return config.Load(path)
}

func checkConfig(_ context.Context, n *node) Result {
	if _, err := n.shimConfig(); err != nil {
		return wrong(err.Error(), fmt.Sprintf("correct %s: no Wasm container starts before", n.configPath()))
	}
	if _, err := os.Stat(n.path(n.configPath())); err != nil {
		return ok(n.configPath() + " does not exist: the defaults hold")
	}
	return ok(n.configPath())
}

// checkDriver compares which program makes cgroups. The kubelet's choice shows in each
// container's path, and counts; the others decide for ctr.
func checkDriver(_ context.Context, n *node) Result {
	c, err := n.shimConfig()
	if err != nil {
		return unknown("the shim's config", "see above")
	}
	ours := driver(c.SystemdCgroup)
	runc, told := install.RunningSystemdCgroup(n.containerd.cri)
	if told && runc != c.SystemdCgroup {
		return warn(fmt.Sprintf("the shim says %s, containerd's default runtime %s", ours, driver(runc)),
			fmt.Sprintf("systemd_cgroup = %t in %s", runc, n.configPath()))
	}
	if kubelet := n.kubeletDriver(); kubelet != "" && kubelet != ours {
		return warn(fmt.Sprintf("the shim says %s, the kubelet %s", ours, kubelet),
			fmt.Sprintf("make containerd's runc (SystemdCgroup), %s (systemd_cgroup) and the kubelet (cgroupDriver) agree", n.configPath()))
	}
	return ok(ours)
}

func driver(systemd bool) string {
	if systemd {
		return "systemd"
	}
	return "cgroupfs"
}

// kubeletDriver returns the driver in kubeadm's configuration of the kubelet, or "".
func (n *node) kubeletDriver() string {
	text, err := n.read("/var/lib/kubelet/config.yaml")
	if err != nil {
		return ""
	}
	var kubelet struct {
		CgroupDriver string `json:"cgroupDriver"`
	}
	if yaml.Unmarshal([]byte(text), &kubelet) != nil {
		return ""
	}
	return kubelet.CgroupDriver
}
