package control

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

// RoleExecutor is the role of a program that stands in for Argo's executor: it waits for Daemon.Start, closes
// its end of the socket once it handles signals, and then does the executor's work. If that work is only to copy
// argoexec for others, it does it first, and reports the result. Its environment is the container's, after ExecutorEnv.
const RoleExecutor = "argo-executor"

// ReleaseEnv is the variable that holds the release of Argo which the program stands in for.
const ReleaseEnv = "WASM_ARGO_RELEASE"

// TemplateEnv is the variable that holds the digest, as TemplateDigest returns it, of the template that the pod's init
// container has left in the pod's volume. It is empty for that container itself.
const TemplateEnv = "WASM_ARGO_TEMPLATE"

// TemplateDigest returns the digest of a template.
func TemplateDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// ExecutorEnv returns the environment of an executor of a release of Argo, in a container with environment env.
func ExecutorEnv(release, template string, env []string) []string {
	return append([]string{RoleEnv + "=" + RoleExecutor, ReleaseEnv + "=" + release, TemplateEnv + "=" + template}, environ.Unique(env)...)
}
