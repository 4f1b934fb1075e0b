package preview1_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// posix answers WASI's calls as a native program in a container would: with the plain system calls, in a process
// whose root is the container's.
type posix struct {
	memory []byte
	fds    map[uint64]int
}

// errnos are the numbers of WASI for those of Linux that the sequences meet.
var errnos = map[unix.Errno]errno{
	0: success, unix.EBADF: ebadf, unix.EBUSY: 10, unix.EEXIST: eexist, unix.EFBIG: 22, unix.EINVAL: einval, unix.EISDIR: eisdir,
	unix.ELOOP: eloop, unix.ENAMETOOLONG: enametoolong, unix.ENOENT: enoent, unix.ENOTDIR: enotdir, unix.ENOTEMPTY: enotempty, unix.EPERM: eperm,
	unix.ESPIPE: espipe, unix.EXDEV: exdev,
}

func errnoOf(err error) errno {
	var number unix.Errno
	if err != nil && !errors.As(err, &number) {
		return trapped
	}
	if e, known := errnos[number]; known {
		return e
	}
	return errno(1000 + int(number))
}

func (p *posix) put(at uint64, value any) {
	if _, err := binary.Encode(p.memory[at:], binary.LittleEndian, value); err != nil {
		panic(err)
	}
}

func (p *posix) path(at, length uint64) string { return string(p.memory[at : at+length]) }

// buffer is the only one of a list.
func (p *posix) buffer(list uint64) []byte {
	at, length := binary.LittleEndian.Uint32(p.memory[list:]), binary.LittleEndian.Uint32(p.memory[list+4:])
	return p.memory[at : at+length]
}

func (p *posix) moved(at uint64, n int, err error) errno {
	if err == nil {
		p.put(at, uint32(n))
	}
	return errnoOf(err)
}

func (p *posix) position(at uint64, position int64, err error) errno {
	if err == nil {
		p.put(at, position)
	}
	return errnoOf(err)
}

func nofollow(lookup uint64) int {
	if lookup&follow != 0 {
		return 0
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

func (p *posix) call(name string, a []uint64) errno {
	fd, known := p.fds[a[0]]
	if name != "path_symlink" && !known {
		return ebadf
	}
	switch name {
	case "path_create_directory":
		return errnoOf(unix.Mkdirat(fd, p.path(a[1], a[2]), 0o777))
	case "path_remove_directory":
		return errnoOf(unix.Unlinkat(fd, p.path(a[1], a[2]), unix.AT_REMOVEDIR))
	case "path_unlink_file":
		return errnoOf(unix.Unlinkat(fd, p.path(a[1], a[2]), 0))
	case "path_rename":
		return errnoOf(unix.Renameat(fd, p.path(a[1], a[2]), p.fds[a[3]], p.path(a[4], a[5])))
	case "path_link":
		return errnoOf(unix.Linkat(fd, p.path(a[2], a[3]), p.fds[a[4]], p.path(a[5], a[6]), int(a[1])*unix.AT_SYMLINK_FOLLOW))
	case "path_symlink":
		return errnoOf(unix.Symlinkat(p.path(a[0], a[1]), p.fds[a[2]], p.path(a[3], a[4])))
	case "path_readlink":
		n, err := unix.Readlinkat(fd, p.path(a[1], a[2]), p.memory[a[3]:a[3]+a[4]])
		return p.moved(a[5], n, err)
	case "path_open":
		return p.open(fd, a)
	case "fd_close":
		delete(p.fds, a[0])
		return errnoOf(unix.Close(fd))
	case "path_filestat_get":
		var s unix.Stat_t
		err := unix.Fstatat(fd, p.path(a[2], a[3]), &s, nofollow(a[1]))
		return p.status(a[4], s, err)
	case "fd_filestat_get":
		var s unix.Stat_t
		err := unix.Fstat(fd, &s)
		return p.status(a[1], s, err)
	case "path_filestat_set_times":
		return p.setTimes(fd, p.path(a[2], a[3]), a[4], a[5], a[6], nofollow(a[1]))
	case "fd_filestat_set_times":
		return p.setTimes(fd, "", a[1], a[2], a[3], unix.AT_EMPTY_PATH)
	case "fd_readdir":
		return p.list(fd, a)
	}
	return p.transfer(name, fd, a)
}

func (p *posix) transfer(name string, fd int, a []uint64) errno {
	switch name {
	case "fd_read":
		n, err := unix.Read(fd, p.buffer(a[1]))
		return p.moved(a[3], n, err)
	case "fd_write":
		n, err := unix.Write(fd, p.buffer(a[1]))
		return p.moved(a[3], n, err)
	case "fd_pread":
		n, err := unix.Pread(fd, p.buffer(a[1]), int64(a[3]))
		return p.moved(a[4], n, err)
	case "fd_pwrite":
		n, err := unix.Pwrite(fd, p.buffer(a[1]), int64(a[3]))
		return p.moved(a[4], n, err)
	case "fd_seek":
		if a[2] > 2 {
			return einval
		}
		position, err := unix.Seek(fd, int64(a[1]), int(a[2]))
		return p.position(a[3], position, err)
	case "fd_tell":
		position, err := unix.Seek(fd, 0, 1)
		return p.position(a[1], position, err)
	case "fd_filestat_set_size":
		return errnoOf(unix.Ftruncate(fd, int64(a[1])))
	case "fd_sync":
		return errnoOf(unix.Fsync(fd))
	case "fd_datasync":
		return errnoOf(unix.Fdatasync(fd))
	case "fd_allocate":
		return errnoOf(unix.Fallocate(fd, 0, int64(a[1]), int64(a[2])))
	case "fd_fdstat_set_flags":
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, openFlags(a[1]))
		return errnoOf(err)
	}
	return unasked
}

// unasked is the answer to a call that a native program does not have.
const unasked errno = -2

func openFlags(flags uint64) int {
	out := 0
	for bit, flag := range map[uint64]int{appends: unix.O_APPEND, nonblock: unix.O_NONBLOCK, 16: unix.O_SYNC} {
		if flags&bit != 0 {
			out |= flag
		}
	}
	return out
}

func (p *posix) open(dir int, a []uint64) errno {
	flags := openFlags(a[7]) | unix.O_CLOEXEC
	switch a[5] & (mayRead | mayWrite) {
	case mayWrite:
		flags |= unix.O_WRONLY
	case mayRead | mayWrite:
		flags |= unix.O_RDWR
	}
	if a[1]&follow == 0 {
		flags |= unix.O_NOFOLLOW
	}
	for bit, flag := range map[uint64]int{create: unix.O_CREAT, onlyDir: unix.O_DIRECTORY, exclusive: unix.O_EXCL, truncate: unix.O_TRUNC} {
		if a[4]&bit != 0 {
			flags |= flag
		}
	}
	fd, err := unix.Openat(dir, p.path(a[2], a[3]), flags, 0o666)
	if err != nil {
		return errnoOf(err)
	}
	number := uint64(root + 1)
	for p.fds[number] != 0 {
		number++
	}
	p.fds[number] = fd
	p.put(a[8], uint32(number))
	return success
}

func (p *posix) status(at uint64, s unix.Stat_t, err error) errno {
	kinds := map[uint32]uint64{unix.S_IFDIR: 3, unix.S_IFREG: 4, unix.S_IFLNK: 7}
	p.put(at, []uint64{s.Dev, s.Ino, kinds[s.Mode&unix.S_IFMT], uint64(s.Nlink), uint64(s.Size)})
	return errnoOf(err)
}

func (p *posix) setTimes(fd int, path string, access, change, flags uint64, how int) errno {
	times := make([]unix.Timespec, 2)
	for i, given := range []uint64{access, change} {
		switch flags >> (2 * i) & 3 {
		case 0:
			times[i].Nsec = unix.UTIME_OMIT
		case 1:
			times[i] = unix.NsecToTimespec(int64(given))
		case 2:
			times[i].Nsec = unix.UTIME_NOW
		case 3:
			return einval
		}
	}
	return errnoOf(unix.UtimesNanoAt(fd, path, times, how))
}

// list lists a folder in WASI's format.
func (p *posix) list(fd int, a []uint64) errno {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return ebadf
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return errnoOf(err)
	}
	kinds := map[byte]byte{unix.DT_DIR: 3, unix.DT_REG: 4, unix.DT_LNK: 7}
	at, buffer := a[1], make([]byte, 4096)
	for {
		n, err := unix.Getdents(fd, buffer)
		if n == 0 || err != nil {
			p.put(a[4], uint32(at-a[1]))
			return errnoOf(err)
		}
		for entry := buffer[:n]; len(entry) > 0; {
			length := binary.LittleEndian.Uint16(entry[16:])
			name := unix.ByteSliceToString(entry[19:length])
			p.put(at, []uint64{0, 0, uint64(len(name)) | uint64(kinds[entry[18]])<<32})
			at += 24 + uint64(copy(p.memory[at+24:], name))
			entry = entry[length:]
		}
	}
}

// nativeSeed is the variable that makes this test's program the native one: it makes the calls of the sequence
// with that seed, in the root that its argument names, and prints the answers.
const nativeSeed = "PREVIEW1_NATIVE_SEED"

func TestMain(m *testing.M) {
	var seed uint64
	if _, err := fmt.Sscan(os.Getenv(nativeSeed), &seed); err == nil {
		if err := answerNatively(seed, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func answerNatively(seed uint64, dir string) error {
	if err := errors.Join(unix.Chroot(dir), unix.Chdir("/")); err != nil {
		return err
	}
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c := &caller{t: &testing.T{}, posix: &posix{memory: make([]byte, pages<<16), fds: map[uint64]int{root: fd}}}
	random, fds := rand.New(rand.NewPCG(seed, 0)), []uint64{root}
	var answers []answer
	for range stepsOfASequence {
		s := randomStep(random, len(fds))
		answers = append(answers, s.run(c, fds))
		fds = s.left(c, answers[len(answers)-1], fds)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}
