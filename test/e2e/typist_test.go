package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/pages"
	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// typedWithin bounds one command of a page; some commands build the shim.
const typedWithin = 10 * time.Minute

// typist stands for a reader who types a page's commands in a shell, in the folder dir of this machine. The node sees
// the machine's files, so that nothing has to be copied there. sudo is not needed, and kubectl finds the cluster.
type typist struct {
	dir string
}

// newTypist returns one at the root of the source tree.
func newTypist(t *testing.T) *typist {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	return &typist{root}
}

// commandsOf returns the blocks of commands below a heading of a page.
func commandsOf(t *testing.T, page, heading string) [][]string {
	t.Helper()
	commands, err := pages.Commands(page, heading)
	if err != nil {
		t.Fatal(err)
	}
	return commands
}

// script makes the shell stop at the first failure, which a loop would otherwise ignore.
func script(line string) []string { return []string{"-e", "-c", "sudo() { \"$@\"; }\n" + line} }

// onMachine types a command on this machine, where kubectl speaks to the cluster, and returns what it printed.
func (p *typist) onMachine(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), typedWithin)
	defer cancel()
	command := exec.CommandContext(ctx, "/bin/bash", script(line)...)
	if !strings.HasPrefix(line, "kubectl ") {
		// It must not inherit the settings of the make that may run this test.
		command.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "MFLAGS=")
		return p.typed(t, line, command, (*exec.Cmd).Start)
	}
	kubectl := cluster.KubectlCommand(ctx)
	command.Env = append(kubectl.Env, "PATH="+filepath.Dir(kubectl.Path)+":"+os.Getenv("PATH"))
	return p.typed(t, line, command, cluster.StartInNetwork)
}

// onNode types a command on the cluster's node. There is no systemd to restart containerd.
func (p *typist) onNode(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), typedWithin)
	defer cancel()
	if strings.TrimPrefix(line, "sudo ") == "systemctl restart containerd" {
		if err := cluster.Restart(ctx, testcluster.Containerd); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	return p.typed(t, line, cluster.NodeCommand(ctx, "/bin/bash", script(line)...), cluster.StartOnNode)
}

func (p *typist) typed(t *testing.T, line string, command *exec.Cmd, start func(*exec.Cmd) error) string {
	t.Helper()
	command.Dir, command.WaitDelay = p.dir, 10*time.Second
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := start(command)
	if err == nil {
		err = command.Wait()
	}
	t.Logf("$ %s\n%s%s", line, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return stdout.String()
}
