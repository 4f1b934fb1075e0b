package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod without Argo reads objects as files, and what it writes becomes an object, by annotations and a Secret.
func TestPodArtifacts(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s3 := cluster.S3()
	create(t, s.name, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "my-s3"},
		StringData: map[string]string{"accesskey": s3.AccessKey, "secretkey": s3.SecretKey},
	})
	key := s.name + "/data"
	putObject(t, key, strings.Repeat("0123456789abcdef", 1<<16))
	pod := asWasm.pod(t, "part", "/in/data", "1048560", "16", ",", "copy", "/in/data", "/out/copy", ",", "ls", "/")
	pod.Annotations = map[string]string{
		"wasm.shim/artifact.data":        "s3://" + s3.Bucket + "/" + key + " -> /in/data",
		"wasm.shim/artifact.copy":        "/out/copy -> s3://" + s3.Bucket + "/" + s.name + "/copy",
		"wasm.shim/artifact-credentials": "secret:v0",
	}
	mount(pod, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "my-s3"}}, at("/s3"))
	ended := s.run(t, pod)
	log := s.logs(t, ended.Name, "main")
	if !strings.HasPrefix(log, "0123456789abcdef") || strings.Contains(log, "\ns3\n") {
		t.Errorf("it printed\n%s", log)
	}
	if got, want := get(t, s3.Dir, s.name, "copy"), get(t, s3.Dir, key); got != want {
		t.Errorf("the copy has %d bytes, want %d", len(got), len(want))
	}
}

// A pod whose output cannot be stored fails with a code and a message of its own.
func TestPodOutputCannotBeStored(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s3 := cluster.S3()
	create(t, s.name, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "my-s3"},
		StringData: map[string]string{"accesskey": s3.AccessKey, "secretkey": s3.SecretKey},
	})
	pod := asWasm.pod(t, "write", "/out/x", "text")
	pod.Annotations = map[string]string{
		"wasm.shim/artifact.x":           "/out/x -> s3://no-such-bucket/x",
		"wasm.shim/artifact-credentials": "secret:v0",
	}
	mount(pod, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "my-s3"}}, at("/s3"))
	ended := s.run(t, pod).Status.ContainerStatuses[0].State.Terminated
	if ended == nil || ended.ExitCode != 74 || !strings.Contains(ended.Message, "store output x: s3://no-such-bucket/x: ") {
		t.Errorf("the container has ended with %+v", ended)
	}
}

// putObject puts an object into the cluster's bucket. Its folder is removed at the test's end.
func putObject(t *testing.T, key, content string) {
	t.Helper()
	dir := filepath.Join(cluster.S3().Dir, filepath.Dir(key))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	put(t, content, cluster.S3().Dir, key)
}
