package test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// users is a container's /etc/passwd.
const users = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\nhomeless:x:1001:1001:::/bin/sh\nguest:x:1000:1000::/second:\n"

// withPasswd mounts a file with the given content as the container's passwd.
func withPasswd(t *testing.T, content string) oci.SpecOpts {
	t.Helper()
	file := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return withFile(file, "/etc/passwd")
}

func withFile(source, destination string) oci.SpecOpts {
	return oci.WithMounts([]specs.Mount{{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", "ro"}}})
}

// withVariables appends variables unchanged. oci.WithEnv would replace variables of the same name.
func withVariables(variables ...string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Process.Env = append(s.Process.Env, variables...)
		return nil
	}
}

func withoutVariables(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	s.Process.Env = nil
	return nil
}

// variables returns the lines that "env" prints, sorted and without PWD. PWD stands for the working directory,
// which WASI lacks; runc does not add it.
func variables(output string) []string {
	var found []string
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "PWD=") {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(found)
	return found
}

// homes returns the HOME variables.
func homes(variables []string) []string {
	return slices.DeleteFunc(slices.Clone(variables), func(v string) bool { return !strings.HasPrefix(v, "HOME=") })
}

// runEnv runs a program that prints its environment, and returns the printed variables.
func (w way) runEnv(t *testing.T, node *testnode.Node, opts ...oci.SpecOpts) []string {
	t.Helper()
	k := w.createArgs(t, node, []string{w.probe(), "env"}, opts...)
	k.start()
	k.expectCode(0)
	if _, err := k.Task.Delete(k.ctx); err != nil { // returns when all output has been copied
		t.Error(err)
	}
	return variables(k.output.String())
}

// A guest's environment is the one that runc makes of the same specification for a native program: HOME comes
// from the user's entry in the container's passwd file, unless the specification sets it.
func TestHomeIsAsRuncs(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		passwd, guest := withPasswd(t, users), oci.WithUIDGID(1000, 1000)
		for name, c := range map[string]struct {
			opts []oci.SpecOpts
			want []string
		}{
			"no passwd":      {nil, []string{"HOME=/"}},
			"root":           {[]oci.SpecOpts{passwd}, []string{"HOME=/root"}},
			"user":           {[]oci.SpecOpts{passwd, guest}, []string{"HOME=/home/guest"}},
			"no entry":       {[]oci.SpecOpts{passwd, oci.WithUIDGID(4242, 4242)}, []string{"HOME=/"}},
			"no home":        {[]oci.SpecOpts{passwd, oci.WithUIDGID(1001, 1001)}, []string{"HOME="}},
			"given":          {[]oci.SpecOpts{passwd, guest, withVariables("HOME=/given")}, []string{"HOME=/given"}},
			"empty":          {[]oci.SpecOpts{passwd, guest, withVariables("HOME=")}, []string{"HOME=/home/guest"}},
			"twice":          {[]oci.SpecOpts{passwd, withVariables("HOME=/first", "A=1", "HOME=/last", "A=2")}, []string{"HOME=/last"}},
			"empty at last":  {[]oci.SpecOpts{passwd, guest, withVariables("HOME=/first", "HOME=")}, []string{"HOME=/home/guest"}},
			"no environment": {[]oci.SpecOpts{passwd, guest, withoutVariables}, nil},
			"no text":        {[]oci.SpecOpts{withPasswd(t, strings.Repeat("\x00", 1<<17)), guest}, []string{"HOME=/"}},
			"directory":      {[]oci.SpecOpts{withFile(t.TempDir(), "/etc/passwd"), guest}, []string{"HOME=/"}},
		} {
			got, theirs := argoWasm.runEnv(t, node, c.opts...), argoNative.runEnv(t, node, c.opts...)
			if !slices.Equal(got, theirs) {
				t.Errorf("%s: the guest has %q, a program under runc %q", name, got, theirs)
			}
			if !slices.Equal(homes(got), c.want) {
				t.Errorf("%s: the guest has %q, want %q", name, homes(got), c.want)
			}
		}
	})
}

// Each process of a container has its own user, and so its own home.
func TestHomeOfExecs(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		passwd := withPasswd(t, users)
		mains := map[string]*task{}
		for _, w := range []way{argoWasm, argoNative} {
			mains[w.name] = w.createArgs(t, node, []string{w.probe(), "sleep", "1000"}, passwd)
			mains[w.name].start()
			mains[w.name].output.await(t, "sleeping")
		}
		for name, c := range map[string]struct {
			user uint32
			env  []string
			want []string
		}{
			"same user":  {0, []string{"A=1"}, []string{"HOME=/root"}},
			"other user": {1000, []string{"A=1"}, []string{"HOME=/home/guest"}},
			"no entry":   {4242, []string{"A=1"}, []string{"HOME=/"}},
			"given":      {1000, []string{"HOME=/given"}, []string{"HOME=/given"}},
			"empty":      {1000, []string{"HOME="}, []string{"HOME=/home/guest"}},
		} {
			var found [][]string
			for _, w := range []way{argoWasm, argoNative} {
				main := mains[w.name]
				e := main.exec([]string{w.probe(), "env"}, func(p *specs.Process) { p.User = specs.User{UID: c.user, GID: c.user}; p.Env = c.env })
				code, output := main.finish(e)
				if code != 0 {
					t.Errorf("%s: %s ended with %d: %s", name, w.name, code, output)
				}
				found = append(found, variables(output))
			}
			if !slices.Equal(found[0], found[1]) {
				t.Errorf("%s: the guest has %q, a program under runc %q", name, found[0], found[1])
			}
			if !slices.Equal(homes(found[0]), c.want) {
				t.Errorf("%s: the guest has %q, want %q", name, homes(found[0]), c.want)
			}
		}
	})
}

// Argo's emissary passes to its program the environment that runc gave to the emissary.
func TestHomeOfEmissarysGuests(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		passwd, guest := withPasswd(t, users), oci.WithUIDGID(1000, 1000)
		for name, c := range map[string]struct {
			env  []string
			opts []oci.SpecOpts
			want string
		}{
			"no passwd": {nil, nil, "HOME=/\n"},
			"user":      {nil, []oci.SpecOpts{passwd, guest}, "HOME=/home/guest\n"},
			"empty":     {[]string{"HOME="}, []oci.SpecOpts{passwd, guest}, "HOME=/home/guest\n"},
			"given":     {[]string{"HOME=/given"}, []oci.SpecOpts{passwd, guest}, "HOME=/given\n"},
		} {
			for _, w := range []way{argoWasm, argoNative} {
				e := w.emissary(t, node, plainTemplate, c.env, []string{"env"}, c.opts...)
				e.start()
				e.expectCode(0)
				if _, err := e.Task.Delete(e.ctx); err != nil { // returns when all output has been copied
					t.Error(err)
				}
				if output := "\n" + e.output.String(); strings.Count(output, "\nHOME=") != 1 || !strings.Contains(output, "\n"+c.want) {
					t.Errorf("%s: as %s it printed %s, want %s", name, w.name, output, c.want)
				}
			}
		}
	})
}

// A guest can make the passwd file of others a special file or a link. runc would then wait for ever or read
// the node's file. Such a file keeps no container from starting.
func TestHomeIsNotWaitedFor(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		etc, outside := t.TempDir(), filepath.Join(t.TempDir(), "passwd")
		if err := os.WriteFile(outside, []byte("root:x:0:0::/outside:\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		passwd := filepath.Join(etc, "passwd")
		for name, plant := range map[string]func() error{
			"FIFO":           func() error { return syscall.Mkfifo(passwd, 0o644) },
			"link out":       func() error { return os.Symlink(outside, passwd) },
			"relative link":  func() error { return os.Symlink("../../../../../../../.."+outside, passwd) },
			"link to itself": func() error { return os.Symlink("passwd", passwd) },
			"worker's root":  func() error { return os.Symlink("/proc/self/root/module", passwd) },
		} {
			if err := plant(); err != nil {
				t.Fatal(err)
			}
			if got := homes(argoWasm.runEnv(t, node, withFile(etc, "/etc"))); !slices.Equal(got, []string{"HOME=/"}) {
				t.Errorf("%s: the guest has %q", name, got)
			}
			if err := os.Remove(passwd); err != nil {
				t.Fatal(err)
			}
		}
	})
}
