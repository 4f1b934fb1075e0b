package incluster

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// The DaemonSet gives the installer arguments that it understands, and mounts every folder that it then uses under its
// own name, for writing only where it writes.
func TestDaemonSetFits(t *testing.T) {
	text, err := os.ReadFile("../../deploy/node-installer/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	container := pod.Containers[0]
	t.Setenv("NODE_NAME", "n")
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	o, err := parse(container.Args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.DaemonSet != set.Name || container.Env[0].Name != "NODE_NAME" {
		t.Errorf("it looks for DaemonSet %s; its environment is %v", o.DaemonSet, container.Env)
	}
	// Of the folders to the verifiers this is the one that containerd makes.
	verifiersParent := filepath.Dir(filepath.Dir(install.DefaultVerifiers))
	for path, writes := range map[string]bool{
		o.Install.BinDir:                   true,
		filepath.Dir(o.Install.Config):     true,
		filepath.Dir(o.Install.NodeConfig): true,
		o.State:                            true,
		filepath.Dir(o.Socket):             false,
		filepath.Dir(o.Restart.socket):     false,
		verifiersParent:                    false,
	} {
		i := slices.IndexFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
		if i < 0 {
			t.Errorf("%s is not mounted", path)
			continue
		}
		mount := container.VolumeMounts[i]
		if mount.ReadOnly == writes {
			t.Errorf("%s: read-only is %t", path, mount.ReadOnly)
		}
		volume := pod.Volumes[slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })]
		if volume.HostPath == nil || volume.HostPath.Path != path {
			t.Errorf("%s is %v on the host", path, volume.VolumeSource)
		}
	}
	if len(container.VolumeMounts) != 7 {
		t.Errorf("%d mounts, of which 7 are needed", len(container.VolumeMounts))
	}
	// A removal waits for pods, restarts containerd and waits for it.
	if needed := o.Drain + 2*o.Timeout; float64(*pod.TerminationGracePeriodSeconds) < needed.Seconds() {
		t.Errorf("the grace period is %d s, a removal may need %v", *pod.TerminationGracePeriodSeconds, needed)
	}
}
