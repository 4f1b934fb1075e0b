package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
)

// RoleExecutor is the role of a program that stands in for Argo's executor: it waits for Daemon.Start, closes
// its end of the socket once it handles signals, and then does the executor's work. If that work is to prepare something
// for another container of the pod, it does it first, and reports the result. A program that serves artifacts then waits
// for a second Daemon.Start, and reports again once it serves. Its environment is the container's, after ExecutorEnv.
const RoleExecutor = "argo-executor"

// ReleaseEnv is the variable that holds the release of Argo which the program stands in for.
const ReleaseEnv = "WASM_ARGO_RELEASE"

// TemplateEnv is the variable that holds the digest, as TemplateDigest returns it, of the template that the pod's init
// container has left in the pod's volume. It is empty for that container itself.
const TemplateEnv = "WASM_ARGO_TEMPLATE"

// LazyEnv is the variable that tells the program in the init container, by being 1, that input artifacts can be loaded
// later.
const LazyEnv = "WASM_ARGO_LAZY"

// TemplateDigest returns the digest of a template.
func TemplateDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Executor describes the program that stands in for Argo's executor.
type Executor struct {
	Release  string // of Argo
	Template string // see TemplateEnv
	Lazy     bool   // see LazyEnv
}

// Env returns the program's environment in a container with environment env.
func (e Executor) Env(env []string) []string {
	lazy := "0"
	if e.Lazy {
		lazy = "1"
	}
	return append([]string{RoleEnv + "=" + RoleExecutor, ReleaseEnv + "=" + e.Release, TemplateEnv + "=" + e.Template, LazyEnv + "=" + lazy},
		environ.Unique(env)...)
}

// OwnExecutor returns the description with which this program was started, and removes it from the environment.
func OwnExecutor() (Executor, error) {
	if os.Getenv(RoleEnv) != RoleExecutor {
		return Executor{}, errors.New("it is started by containerd-shim-wasm-v1, not by hand")
	}
	e := Executor{Release: os.Getenv(ReleaseEnv), Template: os.Getenv(TemplateEnv), Lazy: os.Getenv(LazyEnv) == "1"}
	for _, name := range []string{RoleEnv, ReleaseEnv, TemplateEnv, LazyEnv} {
		if err := os.Unsetenv(name); err != nil {
			return Executor{}, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return e, nil
}

// Descriptors returns n descriptors that the daemon has given to this worker beside the socket.
func Descriptors(n int) []*os.File {
	files := make([]*os.File, n)
	for i := range files {
		files[i] = os.NewFile(uintptr(descriptor+1+i), "descriptor "+strconv.Itoa(i))
	}
	return files
}
