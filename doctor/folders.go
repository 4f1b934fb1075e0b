package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// libDir is where the shim places the programs that it carries (module.LibDir).
const libDir = "/var/lib/containerd-shim-wasm"

// leastFree is what should be free for machine code, in bytes.
const leastFree = 256 << 20

// checkPrograms checks the folder whose programs run as root for every container.
func checkPrograms(_ context.Context, n *node) Result {
	if r, bad := n.rootOnly(libDir); bad {
		return r
	}
	placed, err := filepath.Glob(n.path(libDir) + "/wasm-worker-*")
	if err != nil || len(placed) == 0 {
		return ok("the first container places them in " + libDir)
	}
	return ok(fmt.Sprintf("placed in %s", libDir))
}

func checkCache(_ context.Context, n *node) Result {
	c, err := n.shimConfig()
	if err != nil {
		return unknown("the shim's config", "see above")
	}
	if r, bad := n.rootOnly(c.CacheDir); bad {
		return r
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(n.path(existing(n.options.Root, c.CacheDir)), &stat); err != nil {
		return wrong(err.Error(), "make "+c.CacheDir+" a folder of root, or set cache_dir in "+n.configPath())
	}
	free := int64(stat.Bavail) * stat.Bsize
	if stat.Flags&unix.ST_RDONLY != 0 {
		return warn(c.CacheDir+" is read-only: every container compiles its module", "set cache_dir in "+n.configPath()+" to a folder that can be written")
	}
	if free < leastFree {
		return warn(fmt.Sprintf("%s free in %s", mebibytes(free), c.CacheDir), "free some space: without it every container compiles its module")
	}
	size, files := usage(n.path(c.CacheDir))
	return ok(fmt.Sprintf("%s holds %s in %d files, %s free", c.CacheDir, mebibytes(size), files, mebibytes(free)))
}

// rootOnly checks that a folder, or the nearest existing one above it, belongs to root and
// that only root can write to it. A noexec mount is no problem: the shim executes files
// of it through mounts of its own.
func (n *node) rootOnly(dir string) (Result, bool) {
	info, err := os.Stat(n.path(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It is made when it is needed.
	case err != nil:
		return wrong(err.Error(), "make "+dir+" a folder of root"), true
	case !info.IsDir():
		return wrong(dir+" is no folder", "remove it: it is made again when it is needed"), true
	case info.Sys().(*syscall.Stat_t).Uid != 0:
		return wrong(fmt.Sprintf("%s belongs to user %d", dir, info.Sys().(*syscall.Stat_t).Uid), "chown root: "+dir), true
	case info.Mode()&0o022 != 0:
		return wrong(fmt.Sprintf("%s may be written by others than root (%v), who could then run code in every Wasm container", dir, info.Mode().Perm()),
			fmt.Sprintf("rm -rf %[1]s/* and chmod 700 %[1]s", dir)), true
	}
	return Result{}, false
}

// existing returns the nearest folder at or above dir, below root.
func existing(root, dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(filepath.Join(root, dir)); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// usage returns the size of the plain files below dir, and their number.
func usage(dir string) (size int64, files int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // gone meanwhile
		}
		if info, err := d.Info(); err == nil {
			size, files = size+info.Size(), files+1
		}
		return nil
	})
	return size, files
}

func mebibytes(n int64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MiB"
}
