package control

import "github.com/wasmshim/containerd-shim-wasm/internal/environ"

// RoleExecutor is the role of a program that stands in for Argo's executor: it waits for Daemon.Start, closes
// its end of the socket once it handles signals, and then does the executor's work. If that work is only to copy
// argoexec for others, it does it first, and reports the result. Its environment is the container's, after ExecutorEnv.
const RoleExecutor = "argo-executor"

// ReleaseEnv is the variable that holds the release of Argo which the program stands in for.
const ReleaseEnv = "WASM_ARGO_RELEASE"

// ExecutorEnv returns the environment of an executor of a release of Argo, in a container with environment env.
func ExecutorEnv(release string, env []string) []string {
	return append([]string{RoleEnv + "=" + RoleExecutor, ReleaseEnv + "=" + release}, environ.Unique(env)...)
}
