package executor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// logFlags are those that Argo's controller sets.
var logFlags = []string{"--loglevel", "info", "--log-format", "text", "--gloglevel", "0"}

func commandLine(verb string) []string { return append([]string{"argoexec", verb}, logFlags...) }

// environment is what Argo's controller and the kubelet set.
func environment(more ...string) []string {
	return append(more,
		"PATH=/bin", "HOME=/root", "HOSTNAME=pod-1", "ARGO_CONTAINER_NAME=wait", "ARGO_POD_NAME=pod-1", "ARGO_POD_UID=uid-1",
		"ARGO_WORKFLOW_NAME=wf-1", "ARGO_WORKFLOW_UID=uid-2", "ARGO_NODE_ID=node-1", "ARGO_INCLUDE_SCRIPT_OUTPUT=false",
		"ARGO_DEADLINE=0001-01-01T00:00:00Z", "ARGO_PROGRESS_FILE=/var/run/argo/progress", "ARGO_PROGRESS_PATCH_TICK_DURATION=1m0s",
		"ARGO_PROGRESS_FILE_TICK_DURATION=3s", "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443",
		"ARGO_SERVER_PORT_2746_TCP_ADDR=10.0.0.2", "ARGO_SERVER_SERVICE_PORT_WEB=2746", "ARGO_SERVER_SERVICE_HOST=10.0.0.2",
		"ARGO_SERVER_PORT=tcp://10.0.0.2:2746")
}

const containerTemplate = `{"name":"a","inputs":{},"outputs":{},"metadata":{},"container":{"name":"","image":"i","resources":{}}}`

func TestKnownCommandLines(t *testing.T) {
	for _, line := range [][]string{
		commandLine("wait"),
		{"argoexec", "wait"},
		{"/usr/bin/argoexec", "wait"},
		{"argoexec", "--loglevel=debug", "wait", "--log-format=json", "--gloglevel=6"},
		append(commandLine("wait"), "--loglevel", "debug", "--gloglevel", "6"),
		{"argoexec", "kill", "15", "1"},
	} {
		if err := executor.Known(line, environment()); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	if err := executor.Known(commandLine("init"), environment("ARGO_TEMPLATE="+containerTemplate)); err != nil {
		t.Error(err)
	}
}

func TestUnknownCommandLines(t *testing.T) {
	for _, line := range [][]string{
		nil, {"argoexec"}, {"sh", "-c", "argoexec"}, {"./argoexec", "wait"}, {"/bin/sh", "wait"},
		{"argoexec", "wait", "--kubeconfig=/kube/config"}, {"argoexec", "wait", "-n", "x"}, {"argoexec", "wait", "--loglevel"},
		{"argoexec", "wait", "--loglevel", "loud"}, {"argoexec", "wait", "--log-format", "xml"}, {"argoexec", "wait", "--gloglevel", "x"},
		{"argoexec", "wait", "--"}, {"argoexec", "wait", "--help"}, {"argoexec", "wait", "now"}, {"argoexec", "resource", "apply"},
		{"argoexec", "emissary", "--", "true"}, {"argoexec", "kill", "15"}, slices.Repeat([]string{"argoexec"}, 100),
	} {
		if executor.Known(line, environment()) == nil {
			t.Errorf("%q is known", line)
		}
	}
}

func TestKnownEnvironments(t *testing.T) {
	for _, variable := range []string{
		"ARGO_INSTANCE_ID=i", "ARGO_TRACE=1", "EXECUTOR_RETRY_BACKOFF_STEPS=3", "RETRY_BACKOFF_DURATION=1s", "TRANSIENT_ERROR_PATTERN=x",
		"REMOVE_LOCAL_ART_PATH=true", "HTTPS_PROXY=", "ARGO_TERMINATION_GRACE_PERIOD_SECONDS=5", "ARGO_PROGRESS_FILE_TICK_DURATION=0s",
		"ARGO_DEADLINE=2026-11-28T07:00:00Z", "GOMEMLIMIT=64MiB", "ARGO_WAIT_FOR_READY=", "ARGO_SERVER_PORT_2746_TCP=tcp://10.0.0.2:2746",
	} {
		if err := executor.Known(commandLine("wait"), environment(variable)); err != nil {
			t.Errorf("%s: %v", variable, err)
		}
	}
}

func TestUnknownEnvironments(t *testing.T) {
	for _, variable := range []string{
		"HTTPS_PROXY=http://proxy", "http_proxy=http://proxy", "NO_PROXY=x", "KUBECONFIG=/x", "POD_NAMESPACE=x", "KUBERNETES_MASTER=x",
		"KUBE_FEATURE_ClientsAllowCBOR=true", "GODEBUG=http2client=0", "DISABLE_HTTP2=1", "ARGO_ARTIFACT_PLUGIN_NAMES=x",
		"ARGO_WAIT_FOR_READY=true", "ARGO_SERVER_PORT_X=1", "EXECUTOR_RETRY_BACKOFF_STEPS=many", "RETRY_BACKOFF_FACTOR=x",
		"ARGO_POD_NAME=", "ARGO_NODE_ID=", "KUBERNETES_SERVICE_HOST=", "ARGO_DEADLINE=", "ARGO_DEADLINE=soon",
		"ARGO_TERMINATION_GRACE_PERIOD_SECONDS=9223372036854775807", "ARGO_PROGRESS_FILE=/etc/passwd", "ARGO_PROGRESS_FILE=/var/run/argo/../x",
		"ARGO_PROGRESS_FILE=", "ARGO_PROGRESS_FILE_TICK_DURATION=-1s", "ARGO_TEMPLATE=" + containerTemplate,
		"FOO=" + strings.Repeat("x", 200<<10),
	} {
		err := executor.Known(commandLine("wait"), environment(variable))
		if err == nil {
			t.Errorf("%s is known", variable)
		} else if len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: not one short line: %v", variable, err)
		}
	}
	for _, template := range []string{"", "ARGO_TEMPLATE=offloaded", "ARGO_TEMPLATE=", "ARGO_TEMPLATE=null"} {
		if executor.Known(commandLine("init"), environment(template)) == nil {
			t.Errorf("%q is known to init", template)
		}
	}
}

func TestSupported(t *testing.T) {
	for _, template := range []string{
		containerTemplate,
		`{"script":{"image":"i","source":"x"},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/p","default":5,"supplied":{}}}]}}`,
		`{"containerSet":{"containers":[{"name":"a"},{"name":"main"}]},"archiveLocation":{"s3":{"bucket":"b"},"archiveLogs":false}}`,
		`{"container":{},"inputs":{"parameters":[{"name":"p","value":"v"}],"artifacts":[]},"sidecars":[{"name":"s"}],"daemon":true,"http":null}`,
		`{"container":{},"annotations":{"a":"b"},"timeout":"5s","executor":{"serviceAccountName":"x"},"priority":1}`,
	} {
		if err := executor.Supported([]byte(template)); err != nil {
			t.Errorf("%s: %v", template, err)
		}
	}
	for _, template := range []string{
		``, `null`, `[]`, `{}`, `{"container":{}`, `{"container":{},"script":{}}`, `{"container":{},"resource":{}}`, `{"data":{}}`,
		`{"http":{}}`, `{"plugin":{}}`, `{"suspend":{}}`, `{"dag":{}}`, `{"steps":[]}`, `{"container":{},"newField":1}`,
		`{"container":{},"inputs":{"artifacts":[{"name":"a"}]}}`, `{"container":{},"outputs":{"artifacts":[{"name":"a"}]}}`,
		`{"container":{},"outputs":{"newField":1}}`, `{"container":{},"outputs":{"parameters":[{"valueFrom":{"newField":1}}]}}`,
		`{"container":{},"archiveLocation":{"archiveLogs":true}}`, `{"container":{},"archiveLocation":{"newField":true}}`,
		`{"container":{},"outputs":{"artifacts":[{"name":"a"}]},"outputs":{}}`,
		`{"containerSet":{}}`, `{"containerSet":{"containers":[{"name":"../x"}]}}`, `{"containerSet":{"containers":[{"name":""}]}}`,
		strings.Repeat(" ", 2<<20) + containerTemplate,
	} {
		if executor.Supported([]byte(template)) == nil {
			t.Errorf("%.100s is supported", template)
		}
	}
}

func FuzzKnown(f *testing.F) {
	f.Add("argoexec\x00wait\x00--loglevel=info", strings.Join(environment(), "\x00"))
	f.Add("argoexec\x00init", strings.Join(environment("ARGO_TEMPLATE="+containerTemplate), "\x00"))
	f.Add("argoexec\x00kill\x009\x001", "A=B\x00=\x00A")
	f.Fuzz(func(t *testing.T, line, environment string) {
		args, env := strings.Split(line, "\x00"), strings.Split(environment, "\x00")
		err := executor.Known(args, env)
		if err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Errorf("not one short line: %q", err)
		}
	})
}

func FuzzSupported(f *testing.F) {
	f.Add([]byte(containerTemplate))
	f.Add([]byte(`{"script":{"source":"x"},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/p","default":5}}]}}`))
	f.Fuzz(func(t *testing.T, template []byte) {
		if err := executor.Supported(template); err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Errorf("not one short line: %q", err)
		}
	})
}
