package worker

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// rootWith makes a container's root directory with this /etc/passwd.
func rootWith(t *testing.T, passwd string) string {
	t.Helper()
	root := t.TempDir()
	mkdir(t, filepath.Join(root, "etc"))
	write(t, filepath.Join(root, "etc/passwd"), passwd)
	return root
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestComplete(t *testing.T) {
	root := rootWith(t, "root:x:0:0::/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n")
	const uid, own = 1000, "HOME=/home/guest"
	for _, c := range []struct{ env, want []string }{
		{nil, nil},
		{[]string{}, []string{own}},
		{[]string{"A=1"}, []string{"A=1", own}},
		{[]string{"HOME=/given", "A=1"}, []string{"HOME=/given", "A=1"}},
		{[]string{"HOME=", "A=1"}, []string{"A=1", own}},
		{[]string{"HOME", "A=1"}, []string{"A=1", own}},
		{[]string{"HOME=", "HOME=/last"}, []string{"HOME=/last"}},
		{[]string{"HOME=/first", "HOME="}, []string{own}},
		{[]string{"HOME=/first", "B=", "HOME=/last", "B=b"}, []string{"HOME=/last", "B=b"}},
		{[]string{"HOMER=x", "home=y"}, []string{"HOMER=x", "home=y", own}},
	} {
		if got := complete(c.env, root, uid); !slices.Equal(got, c.want) {
			t.Errorf("of %q came %q, want %q", c.env, got, c.want)
		}
	}
}

func TestHome(t *testing.T) {
	const uid = 1000
	for name, c := range map[string]struct{ passwd, want string }{
		"no entry":           {"root:x:0:0::/root:/bin/sh\n", "/"},
		"nothing":            {"", "/"},
		"entry":              {"guest:x:1000:1000::/home/guest:/bin/sh\n", "/home/guest"},
		"first of two":       {"a:x:1000:1000::/a:\nb:x:1000:1000::/b:\n", "/a"},
		"without a home":     {"guest:x:1000:1000:::/bin/sh\n", ""},
		"cut short":          {"guest:x:1000", ""},
		"spaces and blanks":  {"\n\n  guest:x:1000:1000::/home/guest:  \n", "/home/guest"},
		"no end of line":     {"guest:x:1000:1000::/home/guest", "/home/guest"},
		"no number":          {"guest:x:one thousand:1000::/home/guest:\n", "/"},
		"not a file of text": {strings.Repeat("\x00:\xff", 100), "/"},
		"a line too long":    {"guest:x:1000:1000::/home/guest:\n" + strings.Repeat("x", 1<<17), "/"},
		"a file too long":    {"guest:x:1000:1000::/home/guest:\n" + strings.Repeat("a:x:1:1::/a:\n", maxPasswd/13), "/"},
		"as long as allowed": {strings.Repeat("\n", maxPasswd-30) + "guest:x:1000:1000::/home/gues:", "/home/gues"},
	} {
		if got := home(rootWith(t, c.passwd), uid); got != c.want {
			t.Errorf("%s: home is %q, want %q", name, got, c.want)
		}
	}
	if got := home(rootWith(t, "broken:x:zero:0::/broken:\nroot:x:0:0::/root:\n"), 0); got != "/broken" {
		t.Errorf("root's home is %q: like runc, what is no number is 0", got)
	}
}

// Links are resolved inside the container, and never lead to a file outside it.
func TestHomeFollowsLinksInside(t *testing.T) {
	const uid, inside, outside = 1000, "guest:x:1000:1000::/inside:\n", "guest:x:1000:1000::/outside:\n"
	above := t.TempDir()
	write(t, filepath.Join(above, "passwd"), outside)
	for name, plant := range map[string]func(root string){
		"relative": func(root string) { link(t, "../usr/passwd", filepath.Join(root, "etc/passwd")) },
		"absolute": func(root string) { link(t, "/usr/passwd", filepath.Join(root, "etc/passwd")) },
		"directory": func(root string) {
			link(t, "/usr", filepath.Join(root, "etc"))
		},
		"too many dots": func(root string) { link(t, "../../../../../../usr/passwd", filepath.Join(root, "etc/passwd")) },
	} {
		root := filepath.Join(above, name)
		mkdir(t, filepath.Join(root, "usr"))
		write(t, filepath.Join(root, "usr/passwd"), inside)
		plant(root)
		if got := home(root, uid); got != "/inside" {
			t.Errorf("%s: home is %q", name, got)
		}
	}
	for name, target := range map[string]string{
		"up": "../../passwd", "absolute of the host": filepath.Join(above, "passwd"), "to itself": "passwd",
		"nowhere": "/none", "by a magic link": "/proc/self/root" + filepath.Join(above, "passwd"),
	} {
		root := filepath.Join(above, name)
		link(t, target, filepath.Join(root, "etc/passwd"))
		if got := home(root, uid); got != "/" {
			t.Errorf("%s: home is %q", name, got)
		}
	}
}

// A passwd that is not a regular file is not read, and home does not block on it.
func TestHomeOfWhatIsNoFile(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"socket": func(path string) error {
			listener, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { listener.Close() })
			}
			return err
		},
		"endless device": func(path string) error {
			const zero = 1<<8 | 5
			return syscall.Mknod(path, syscall.S_IFCHR|0o644, zero)
		},
		"nothing": func(string) error { return nil },
	} {
		root := t.TempDir()
		mkdir(t, filepath.Join(root, "etc"))
		if err := plant(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := home(root, 0); got != "/" {
			t.Errorf("%s: home is %q", name, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	names, values := environment(control.Run{Root: t.TempDir(), Cwd: "/work", Env: []string{"A=1=2", "=x", "EMPTY="}})
	if want := []string{"A", "EMPTY", "HOME", "PWD"}; !slices.Equal(names, want) {
		t.Errorf("names are %q, want %q", names, want)
	}
	if want := []string{"1=2", "", "/", "/work"}; !slices.Equal(values, want) {
		t.Errorf("values are %q, want %q", values, want)
	}
	names, _ = environment(control.Run{Root: t.TempDir(), Cwd: "/work", Env: []string{"PWD=/given", "HOME=/home"}})
	if want := []string{"PWD", "HOME"}; !slices.Equal(names, want) {
		t.Errorf("names are %q, want %q", names, want)
	}
}
