package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// installBinary copies the binary unless it is installed already. Running shims keep the
// old one: the new file gets its name by rename(2).
func installBinary(o Options, r *Report) error {
	path := o.binaryPath()
	same, err := sameContent(o.Binary, path)
	if err != nil {
		return err
	}
	if same {
		r.say("already installed: %s", path)
		return nil
	}
	if o.DryRun {
		r.did(path, "install %s", path)
		return nil
	}
	if err := os.MkdirAll(o.BinDir, 0o755); err != nil {
		return fmt.Errorf("create the folder for the binary: %w", err)
	}
	src, err := os.Open(o.Binary)
	if err != nil {
		return fmt.Errorf("install the binary: %w", err)
	}
	defer src.Close()
	err = replace(path, 0o755, -1, -1, func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
	if err != nil {
		return err
	}
	r.did(path, "installed %s", path)
	if !slices.Contains(usualPath, filepath.Clean(o.BinDir)) {
		r.say("note: %s is not on the usual PATH of containerd's service; make sure that it is", o.BinDir)
	}
	return nil
}

// usualPath is the PATH that systemd gives to services.
var usualPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// sameContent reports whether b is an executable file with the content of a.
func sameContent(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, fmt.Errorf("read the binary to install: %w", err)
	}
	defer x.Close()
	y, err := os.Open(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the installed binary: %w", err)
	}
	defer y.Close()
	infoX, err := x.Stat()
	if err != nil {
		return false, err
	}
	infoY, err := y.Stat()
	if err != nil {
		return false, err
	}
	if infoY.IsDir() {
		return false, fmt.Errorf("%s is a folder; the binary goes there", b)
	}
	if infoX.Size() != infoY.Size() || infoY.Mode().Perm() != 0o755 {
		return false, nil
	}
	return sameBytes(x, y)
}

func sameBytes(x, y io.Reader) (bool, error) {
	bufX, bufY := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errX := io.ReadFull(x, bufX)
		m, errY := io.ReadFull(y, bufY)
		if !bytes.Equal(bufX[:n], bufY[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			return true, ignoreEOF(errors.Join(errX, errY))
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func uninstallBinary(o Options, r *Report) error {
	path := o.binaryPath()
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if o.DryRun {
		r.did(path, "remove %s", path)
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the binary: %w", err)
	}
	r.did(path, "removed %s", path)
	return nil
}

// installNodeConfig writes the shim's own configuration where there is none. It is
// how the shim learns that systemd manages cgroups: containerd tells only runc.
func installNodeConfig(o Options, systemd bool, r *Report) error {
	path := o.NodeConfig
	if _, err := os.Stat(path); err == nil {
		c, err := config.Load(path)
		if err != nil {
			return err
		}
		r.say("kept %s", path)
		if c.SystemdCgroup != systemd {
			r.say("note: %s has systemd_cgroup = %t, containerd's own runtime has SystemdCgroup = %t", path, c.SystemdCgroup, systemd)
		}
		return nil
	}
	if o.DryRun {
		r.did(path, "write %s", path)
		return nil
	}
	if err := put(path, []byte(config.Template(systemd))); err != nil {
		return err
	}
	r.did(path, "wrote %s", path)
	return nil
}

// uninstallNodeConfig removes the shim's configuration while it is as install wrote
// it, and its folder when nothing else is in there.
func uninstallNodeConfig(o Options, r *Report) error {
	path := o.NodeConfig
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the shim's configuration: %w", err)
	}
	if string(text) != config.Template(false) && string(text) != config.Template(true) {
		r.say("kept %s: it was edited", path)
		return nil
	}
	if o.DryRun {
		r.did(path, "remove %s", path)
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the shim's configuration: %w", err)
	}
	r.did(path, "removed %s", path)
	if filepath.Base(filepath.Dir(path)) == "containerd-shim-wasm" {
		_ = os.Remove(filepath.Dir(path)) // only succeeds when empty
	}
	return nil
}
