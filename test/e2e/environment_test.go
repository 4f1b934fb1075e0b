package e2e

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.configMap(t, "config", map[string]string{"key": "of config", "OTHER": "all of it"})
	create(t, s.name, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "secret"}, StringData: map[string]string{"password": "hidden"}})
	config, secret := corev1.LocalObjectReference{Name: "config"}, corev1.LocalObjectReference{Name: "secret"}
	both(t, "sources", func(t *testing.T, f flavour) {
		pod := f.pod(t, "env")
		pod.Labels = map[string]string{"colour": "green"}
		main := &pod.Spec.Containers[0]
		main.EnvFrom = []corev1.EnvFromSource{{Prefix: "ALL_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: config}}}
		main.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("1500m")}
		main.Env = []corev1.EnvVar{
			{Name: "PLAIN", Value: "with spaces\nand lines"},
			{Name: "COMPOSED", Value: "$(PLAIN)!"},
			{Name: "CONFIG", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: config, Key: "key"}}},
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: secret, Key: "password"}}},
			fieldEnv("NAMESPACE", "metadata.namespace"),
			fieldEnv("LABEL", "metadata.labels['colour']"),
			fieldEnv("NODE", "spec.nodeName"),
			resourceEnv("MEMORY", "limits.memory"),
			resourceEnv("CPU", "limits.cpu"),
		}
		ended := s.run(t, pod)
		got := strings.Split(s.logs(t, ended.Name, "main"), "\n")
		for _, want := range []string{
			"PLAIN=with spaces", "and lines", "COMPOSED=with spaces", "and lines!",
			"CONFIG=of config", "SECRET=hidden", "ALL_key=of config", "ALL_OTHER=all of it",
			"NAMESPACE=" + s.name, "LABEL=green", "NODE=" + ended.Spec.NodeName,
			"MEMORY=67108864", "CPU=2",
			"HOSTNAME=" + ended.Name, "PATH=/bin",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("there is no line %q in its environment %q", want, got)
			}
		}
	})
	// A guest has the same environment as any container, except for PWD. PWD carries the working directory, which
	// WASI lacks.
	t.Run("the-same", func(t *testing.T) {
		t.Parallel()
		names := func(f flavour) []string {
			ended := s.run(t, f.pod(t, "env"))
			var names []string
			for line := range strings.Lines(s.logs(t, ended.Name, "main")) {
				if name, _, _ := strings.Cut(line, "="); name != "PWD" {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			return names
		}
		if wasm, native := names(asWasm), names(asNative); !slices.Equal(wasm, native) {
			t.Errorf("the guest has %q, a native program %q", wasm, native)
		}
	})
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

func resourceEnv(name, of string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: of}}}
}
