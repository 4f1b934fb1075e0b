package digests

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A record is a file of its own, named after its file's identity: it needs no lock, and a damaged record
// harms no other.
type record struct {
	File   identity
	SHA256 string
}

const (
	mostRecords = 4096
	maxRecord   = 1024 // bytes
)

// bootFolder returns the folder for records of this boot, below dir: after a reboot a device number may be
// another disk's. It removes the records of earlier boots.
func bootFolder(dir string) (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(id))
	boot := filepath.Join(dir, name)
	if _, err := os.Lstat(boot); err == nil {
		return boot, nil
	}
	if err := os.MkdirAll(boot, 0o700); err != nil {
		return "", err
	}
	others, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, other := range others {
		if other.Name() != name {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, other.Name())))
		}
	}
	return boot, err
}

// ownFolder fails unless only we can write to a folder, and returns its device.
func ownFolder(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || !onlyOurs(st) {
		return 0, fmt.Errorf("%s must be a folder that only its owner, root, can write", dir)
	}
	return st.Dev, nil
}

func onlyOurs(st unix.Stat_t) bool {
	return st.Uid == uint32(os.Geteuid()) && st.Mode&0o022 == 0
}

func (m *Memory) path(id identity) string {
	return filepath.Join(m.dir, fmt.Sprintf("%x-%x-%x-%x-%x-%x.json", id.Device, id.Inode, id.Generation, id.Size, id.Modified, id.Changed))
}

// recall returns the digest of a file of that identity, if it is remembered.
func (m *Memory) recall(id identity) (string, bool) {
	f, err := os.OpenFile(m.path(id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !onlyOurs(st) {
		return "", false
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return "", false
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil || r.File != id {
		return "", false
	}
	sum, err := hex.DecodeString(r.SHA256)
	return r.SHA256, err == nil && len(sum) == 32
}

// remember writes a record. It needs no flush: records do not outlive a boot.
func (m *Memory) remember(id identity, digest string) error {
	if err := m.makeRoom(); err != nil {
		return err
	}
	data, err := json.Marshal(record{File: id, SHA256: digest})
	if err != nil {
		return err
	}
	path := m.path(id)
	part := path + "." + rand.Text()
	defer os.Remove(part)
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// makeRoom removes the older half of the records, and leftovers of a killed daemon between them, if there are
// too many.
func (m *Memory) makeRoom() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil || len(entries) < mostRecords {
		return err
	}
	var infos []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // otherwise another process has removed it
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, info := range infos[:len(infos)/2] {
		if err := os.Remove(filepath.Join(m.dir, info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
