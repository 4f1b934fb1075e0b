package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mount adds a volume to the pod and mounts it in all of its containers.
func mount(pod *corev1.Pod, source corev1.VolumeSource, mounts ...corev1.VolumeMount) {
	name := "v" + string(rune('0'+len(pod.Spec.Volumes)))
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			for _, m := range mounts {
				m.Name = name
				containers[i].VolumeMounts = append(containers[i].VolumeMounts, m)
			}
		}
	}
}

func at(path string) corev1.VolumeMount { return corev1.VolumeMount{MountPath: path} }

func mountEmptyDir(pod *corev1.Pod, path string) {
	mount(pod, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, at(path))
}

// onNode makes a folder on the node for a hostPath and returns its path on the node and on the machine. The folder
// is removed at the test's end.
func onNode(t *testing.T) (there, here string) {
	t.Helper()
	here, err := os.MkdirTemp(cluster.OnNode("/var/lib"), "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(here); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(here, 0o777); err != nil {
		t.Fatal(err)
	}
	return filepath.Join("/var/lib", filepath.Base(here)), here
}

func put(t testing.TB, text string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	both(t, "emptydir-memory", func(t *testing.T, f flavour) {
		pod := f.pod(t, "write", "/m/a", "text", ",", "read", "/m/a", ",", "rm", "/m/a", ",", "fill", "/m/b")
		limit := resource.MustParse("1Mi")
		mount(pod, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}, at("/m"))
		ended := s.run(t, pod)
		// The folder itself takes one page on some kernels.
		if got := s.logs(t, ended.Name, "main"); got != "textfilled 1024 KiB: No space left on device\n" && got != "textfilled 1020 KiB: No space left on device\n" {
			t.Errorf("it printed %q, want 1 MiB or a page less", got)
		}
	})
	both(t, "hostpath", func(t *testing.T, f flavour) {
		there, here := onNode(t)
		put(t, "kept", here, "kept")
		put(t, "one", here, "file")
		file, dir := corev1.HostPathFile, corev1.HostPathDirectory
		pod := f.pod(t, "read", "/ro/kept", ",", "say", "", ",", "append", "/rw/kept", " and more", ",", "append", "/etc/own/file", " two", ",", "write", "/ro/new", "x")
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there, Type: &dir}},
			at("/rw"), corev1.VolumeMount{MountPath: "/ro", ReadOnly: true})
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there + "/file", Type: &file}}, at("/etc/own/file"))
		ended := s.run(t, pod)
		s.printed(t, ended, "kept", "open /ro/new: "+f.readOnly)
		if got := get(t, here, "kept") + "|" + get(t, here, "file"); got != "kept and more|one two" {
			t.Errorf("the node sees %q", got)
		}
	})
	both(t, "subpath", func(t *testing.T, f flavour) {
		there, here := onNode(t)
		if err := os.MkdirAll(filepath.Join(here, "deep", "dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, "in dir", here, "deep", "dir", "file")
		pod := f.pod(t, "ls", "/d", ",", "read", "/one", ",", "write", "/own/mine", "x", ",", "read", "/d/file")
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "POD", Value: "of-" + f.name}}
		mount(pod, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: there}},
			corev1.VolumeMount{MountPath: "/d", SubPath: "deep/dir"},
			corev1.VolumeMount{MountPath: "/one", SubPath: "deep/dir/file"},
			corev1.VolumeMount{MountPath: "/own", SubPathExpr: "made/$(POD)"})
		s.succeeds(t, pod, "file\nin dirin dir")
		get(t, here, "made", "of-"+f.name, "mine")
	})
	both(t, "read-only-root", func(t *testing.T, f flavour) {
		yes := true
		pod := f.pod(t, "write", "/v/file", "x", ",", "read", "/v/file", ",", "say", "", ",", "write", "/file", "x")
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
		mountEmptyDir(pod, "/v")
		ended := s.run(t, pod)
		s.printed(t, ended, "x", "open /file: "+f.readOnly)
	})
	both(t, "service-account-token", func(t *testing.T, f flavour) {
		pod := f.pod(t, "read", "/var/run/secrets/kubernetes.io/serviceaccount/namespace", ",", "say", "", ",", "read", "/var/run/secrets/kubernetes.io/serviceaccount/token")
		pod.Spec.AutomountServiceAccountToken = nil
		ended := s.run(t, pod)
		namespace, token, _ := strings.Cut(s.logs(t, ended.Name, "main"), "\n")
		if namespace != s.name || strings.Count(token, ".") != 2 {
			t.Errorf("it read the namespace %q and the token %q", namespace, token)
		}
	})
}

// A volume of a ConfigMap or a Secret shows files through symbolic links. An update replaces the links.
func TestConfigVolumes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	create(t, s.name, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, StringData: map[string]string{"password": "hidden"}})
	both(t, "read", func(t *testing.T, f flavour) {
		config := s.configMap(t, "read-"+f.name, map[string]string{"key": "value", "other": "else"})
		pod := f.pod(t, "ls", "/c", ",", "read", "/c/key", ",", "readlink", "/c/key", ",", "read", "/s/password", ",", "ls", "/items/deep", ",", "read", "/one")
		mount(pod, corev1.VolumeSource{ConfigMap: config}, at("/c"), corev1.VolumeMount{MountPath: "/one", SubPath: "other"})
		mount(pod, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}}, at("/s"))
		items := *config
		items.Items = []corev1.KeyToPath{{Key: "key", Path: "deep/renamed"}}
		mount(pod, corev1.VolumeSource{ConfigMap: &items}, at("/items"))
		ended := s.run(t, pod)
		lines := strings.Split(s.logs(t, ended.Name, "main"), "\n")
		// The first entry is a folder whose name is its creation time.
		if want := "..data key other value..data/key hiddenrenamed else"; strings.Join(lines[1:], " ") != want || !strings.HasPrefix(lines[0], "..20") {
			t.Errorf("it printed %q, want ..TIME %q", lines, want)
		}
	})
	both(t, "projected", func(t *testing.T, f flavour) {
		config := s.configMap(t, "projected-"+f.name, map[string]string{"key": "value"})
		pod := f.pod(t, "read", "/p/config/key", ",", "read", "/p/password", ",", "read", "/p/labels", ",", "stat", "/p/token")
		pod.Labels = map[string]string{"colour": "green"}
		mount(pod, corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: config.LocalObjectReference, Items: []corev1.KeyToPath{{Key: "key", Path: "config/key"}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "secret"}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "tests"}},
		}}}, at("/p"))
		s.succeeds(t, pod, `valuehiddencolour="green"`+"symlink 12\n")
	})
	both(t, "update", func(t *testing.T, f flavour) {
		name := "update-" + f.name
		config := s.configMap(t, name, map[string]string{"key": "old"})
		pod := f.pod(t, "await", "/c/key", "old", ",", "say", "old", ",", "await", "/c/key", "new", ",", "say", "new")
		mount(pod, corev1.VolumeSource{ConfigMap: config}, at("/c"))
		made := s.create(t, pod)
		await(t, s.name, made.Name, "runs", isRunning)
		changed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "new"}}
		if _, err := kube.typed.CoreV1().ConfigMaps(s.name).Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.touch(t, made.Name)
		ended := s.ended(t, made.Name)
		if got := s.logs(t, ended.Name, "main"); got != "old\nnew\n" {
			t.Errorf("it printed %q", got)
		}
	})
}

func (s *space) configMap(t *testing.T, name string, data map[string]string) *corev1.ConfigMapVolumeSource {
	t.Helper()
	create(t, s.name, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data})
	return &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
}

func isRunning(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }

// touch changes an annotation of the pod. The kubelet then looks at the pod and its volumes at once, not a minute
// later in its next round.
func (s *space) touch(t *testing.T, pod string) {
	t.Helper()
	if _, err := s.patch(t, pod, `{"metadata":{"annotations":{"e2e/touched":"yes"}}}`); err != nil {
		t.Fatal(err)
	}
}
