package executor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

// Argoexec is where argoexec init puts a copy of argoexec, for the other containers of the pod.
const Argoexec = argo.VolumePath + "/argoexec"

// Commands of wasm-argoexec that Argo does not have. They run in the wait container, when another container of the pod
// comes that needs what init has left undone.
const (
	StageVerb = "stage" // copies argoexec
	FetchVerb = "fetch" // loads the artifacts that are lazy
	ServeVerb = "serve" // serves them
)

// Verb returns the command of argoexec that a container runs if it is init or wait, and else "".
func Verb(args []string) string {
	if len(args) < 2 || path.Base(args[0]) != "argoexec" || args[1] != "init" && args[1] != "wait" {
		return ""
	}
	return args[1]
}

// Known returns an error for a command line or an environment that this package does not know how to honour. The
// environment of init holds the template, that of wait does not: a pod's wait is known if its init was.
func Known(args, env []string) error {
	verb := Verb(args)
	if verb == "" {
		return errors.New("it is neither argoexec init nor argoexec wait")
	}
	if err := checkFlags(args[2:]); err != nil {
		return err
	}
	if err := checkEnv(env); err != nil {
		return err
	}
	if verb == "wait" {
		return nil
	}
	text, set := environ.Lookup(env, "ARGO_TEMPLATE")
	if !set {
		return errors.New("ARGO_TEMPLATE is not set")
	}
	_, err := ParseTemplate([]byte(text))
	return err
}

// levels are the values of --loglevel.
var levels = []string{"trace", "debug", "info", "warn", "warning", "error"}

// checkFlags knows the flags that the controller sets in each pod. What they change is only the log.
func checkFlags(flags []string) error {
	for i := 0; i < len(flags); i++ {
		name, value, joined := strings.Cut(flags[i], "=")
		if !joined {
			if i++; i == len(flags) {
				return fmt.Errorf("argument %.100q is not known", name)
			}
			value = flags[i]
		}
		known := false
		switch name {
		case "--loglevel":
			known = slices.Contains(levels, value)
		case "--log-format":
			known = value == "text" || value == "json"
		case "--gloglevel":
			_, err := strconv.ParseUint(value, 10, 8)
			known = err == nil
		}
		if !known {
			return fmt.Errorf("argument %.100q is not known", name)
		}
	}
	return nil
}

// refused are the variables that change what client-go, net/http or Go's runtime does. The real executor honours
// them, and this program does not.
var refused = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "KUBECONFIG", "KUBERNETES_MASTER",
	"POD_NAMESPACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG", "DISABLE_HTTP2", "HTTP2_READ_IDLE_TIMEOUT_SECONDS",
	"HTTP2_PING_TIMEOUT_SECONDS", "TRANSIENT_ERROR_PATTERN", "REMOVE_LOCAL_ART_PATH", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
}

// refusedPrefixes are those of further such variables.
var refusedPrefixes = []string{"EXECUTOR_RETRY_", "RETRY_BACKOFF_", "KUBE_FEATURE_", "KUBE_CLIENT_BACKOFF_", "OTEL_EXPORTER_OTLP_TRACES"}

// honoured are the variables of Argo that are honoured, and those that are not for the executor. Another one may be of
// an Argo that is not known.
var honoured = []string{
	"ARGO_CONTAINER_NAME", "ARGO_TEMPLATE", "ARGO_POD_NAME", "ARGO_POD_UID", "ARGO_WORKFLOW_NAME", "ARGO_WORKFLOW_UID",
	"ARGO_NODE_ID", "ARGO_INSTANCE_ID", "ARGO_INCLUDE_SCRIPT_OUTPUT", "ARGO_DEADLINE", "ARGO_TERMINATION_GRACE_PERIOD_SECONDS",
	"ARGO_PROGRESS_FILE", "ARGO_PROGRESS_PATCH_TICK_DURATION", "ARGO_PROGRESS_FILE_TICK_DURATION", "ARGO_CONTAINER_ARGS_FILE",
	"ARGO_DEBUG_PAUSE_BEFORE", "ARGO_DEBUG_PAUSE_AFTER",
}

func checkEnv(env []string) error {
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		hasPrefix := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		switch {
		case value == "":
		case slices.Contains(refused, name) || slices.ContainsFunc(refusedPrefixes, hasPrefix):
			return fmt.Errorf("variable %.100q is set, which only the real executor honours", name)
		case strings.HasPrefix(name, "ARGO_") && !slices.Contains(honoured, name) && !ofService(name):
			return fmt.Errorf("variable %.100q is not known", name)
		}
	}
	return nil
}

// ofService reports whether the kubelet may have set a variable for a Service of the namespace, for instance for one
// called argo-server (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
func ofService(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_SERVICE_PORT") || strings.Contains(name, "_SERVICE_PORT_") ||
		strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_")
}
