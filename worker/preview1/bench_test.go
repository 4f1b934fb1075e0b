package preview1_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
	"golang.org/x/sys/unix"
)

// operation is a file operation as a guest's code and as system calls.
type operation struct {
	name string
	// body is the guest's code for one operation. $fd is an open file.
	body   string
	native func(dir, fd int)
}

var buffer [4096]byte

// operations work on a file "file" of 8 KiB, "fd" of it open. The guest's memory has a list of one buffer of a
// byte at 512, of 4 KiB at 520, and the path at 1024.
var operations = []operation{
	{"pread 1 B", `(drop (call $fd_pread (local.get $fd) (i32.const 512) (i32.const 1) (i64.const 0) (i32.const 64)))`,
		func(_, fd int) { unix.Pread(fd, buffer[:1], 0) }},
	{"pread 4 KiB", `(drop (call $fd_pread (local.get $fd) (i32.const 520) (i32.const 1) (i64.const 0) (i32.const 64)))`,
		func(_, fd int) { unix.Pread(fd, buffer[:], 0) }},
	{"pwrite 1 B", `(drop (call $fd_pwrite (local.get $fd) (i32.const 512) (i32.const 1) (i64.const 0) (i32.const 64)))`,
		func(_, fd int) { unix.Pwrite(fd, buffer[:1], 0) }},
	{"pwrite 4 KiB", `(drop (call $fd_pwrite (local.get $fd) (i32.const 520) (i32.const 1) (i64.const 0) (i32.const 64)))`,
		func(_, fd int) { unix.Pwrite(fd, buffer[:], 0) }},
	{"seek", `(drop (call $fd_seek (local.get $fd) (i64.const 0) (i32.const 0) (i32.const 64)))`,
		func(_, fd int) { unix.Seek(fd, 0, 0) }},
	{"fstat", `(drop (call $fd_filestat_get (local.get $fd) (i32.const 64)))`,
		func(_, fd int) { var s unix.Stat_t; unix.Fstat(fd, &s) }},
	{"stat", `(drop (call $path_filestat_get (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const 4) (i32.const 64)))`,
		func(dir, _ int) { var s unix.Stat_t; unix.Fstatat(dir, "file", &s, 0) }},
	{"open and close", `(drop (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 64)))
		(drop (call $fd_close (i32.load (i32.const 64))))`,
		func(dir, _ int) {
			fd, _ := unix.Openat(dir, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			unix.Close(fd)
		}},
	{"clock", `(drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 64)))`,
		func(_, _ int) { var t unix.Timespec; unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) }},
	{"random 16 B", `(drop (call $random_get (i32.const 64) (i32.const 16)))`,
		func(_, _ int) { unix.Getrandom(buffer[:16], 0) }},
}

// loops returns a guest with a function for each operation that repeats it.
func loops() (string, error) {
	text, err := passOn()
	if err != nil {
		return "", err
	}
	for i, o := range operations {
		text = text[:len(text)-1] + fmt.Sprintf(`(func (export "loop%d") (param $fd i32) (param $n i32)
			(loop $again %s (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))`, i, o.body) + ")"
	}
	return text, nil
}

// BenchmarkOperations compares the operations of a guest of this package, of one of the engine's own WASI, and of
// a native program.
func BenchmarkOperations(b *testing.B) {
	dir := b.TempDir()
	write(b, filepath.Join(dir, "file"), string(make([]byte, 8192)))
	handle, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer handle.Close()
	file, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	text, err := loops()
	if err != nil {
		b.Fatal(err)
	}
	binary, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		b.Fatal(err)
	}
	m, err := shared()
	if err != nil {
		b.Fatal(err)
	}
	module, err := wasmtime.NewModule(m.engine, binary)
	if err != nil {
		b.Fatal(err)
	}
	m.module = module
	for i, o := range operations {
		b.Run(o.name+"/native", func(b *testing.B) {
			for b.Loop() {
				o.native(int(handle.Fd()), int(file.Fd()))
			}
		})
		for _, kind := range []struct {
			name string
			make func(testing.TB, machine, string) *caller
		}{{"ours", oursOn}, {"engine", theirsOn}} {
			b.Run(o.name+"/"+kind.name, func(b *testing.B) {
				c := kind.make(b, m, dir)
				c.vector(atData, 1)
				copy(c.bytes()[atVector+8:], []byte{0, atData >> 8, 0, 0, 0, 0x10, 0, 0})
				fd := c.opened("file", 0, mayRead|mayWrite, 0)
				c.text(atPath, "file")
				loop := c.instance.GetFunc(c.store, fmt.Sprint("loop", i))
				b.ResetTimer()
				if _, err := loop.Call(c.store, int32(fd), int32(b.N)); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkFolder reads a folder of 3,000 entries.
func BenchmarkFolder(b *testing.B) {
	dir := b.TempDir()
	const many = 3000
	for i := range many {
		write(b, filepath.Join(dir, fmt.Sprint("entry-", i)), "")
	}
	b.Run("native", func(b *testing.B) {
		for b.Loop() {
			fd, _ := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			for n := 1; n > 0; {
				n, _ = unix.Getdents(fd, buffer[:])
			}
			unix.Close(fd)
		}
	})
	for name, guest := range map[string]func(testing.TB, string) *caller{"ours": ours, "engine": theirs} {
		b.Run(name, func(b *testing.B) {
			c := guest(b, dir)
			for b.Loop() {
				fd := c.opened(".", onlyDir, mayRead, 0)
				entries := 0
				for cookie, more := uint64(0), true; more; {
					c.want(c.call("fd_readdir", fd, atData, 4096, cookie, atResult), success)
					used := int(c.number(atResult, 4))
					more = used == 4096
					for at := atData; at+24 <= atData+used; {
						end := at + 24 + int(c.number(at+16, 4))
						if end > atData+used {
							break
						}
						cookie, at = c.number(at, 8), end
						entries++
					}
				}
				if entries != many+2 {
					b.Fatalf("%d entries", entries)
				}
				c.call("fd_close", fd)
			}
		})
	}
}
