package preview1_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
)

// FuzzCalls makes calls with any arguments, on a memory with any content. Whatever a guest does, nothing of the
// process but the guest's memory changes, and nothing outside of its root. The guest lies between pages that
// nobody may touch, so a wrong pointer ends the test.
//
// The first byte of each 64 is the function, the next ones are the arguments. The content of the memory is the
// input itself.
func FuzzCalls(f *testing.F) {
	f.Add([]byte("seed"))
	f.Add(make([]byte, 1024))
	all, err := functions()
	if err != nil {
		f.Fatal(err)
	}
	for i := range all {
		call := make([]byte, 64)
		call[0] = byte(i)
		f.Add(call)
		for j := range call[1:] {
			call[1+j] = 0xff
		}
		f.Add(append(call, call...))
		for j := range call[1:] {
			call[1+j] = byte(j % 4)
		}
		f.Add(append(append(call, call...), "a\x00b/../c\x00dev/fd/1"...))
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "outside"), "untouched")
		write(t, filepath.Join(dir, "root/a"), "content")
		symlink(t, "../outside", filepath.Join(dir, "root/b"))
		c := oursIn(t, preview1.World{
			Args: []string{"one", "two"}, Env: []string{"A=B"},
			Roots: []preview1.Root{{Path: filepath.Join(dir, "root"), Name: "/"}}, Streams: [3]*os.File{null, null, null},
		})
		copy(c.bytes(), input)
		copy(c.bytes()[len(c.bytes())-min(len(input), 4096):], input)
		for at := 0; at+64 <= len(input) && at < 64*64; at += 64 {
			f := all[int(input[at])%len(all)]
			arguments := fuzzedArguments(f, input[at+1:at+64])
			if f.name == "poll_oneoff" && waits(c.bytes(), arguments[0], arguments[2]) {
				continue
			}
			// The kernel refuses a wrong pointer, where our code would crash.
			if err := c.call(f.name, arguments...); err == efault {
				t.Errorf("%s%v gives the kernel a wrong pointer", f.name, arguments)
			}
		}
		if content, err := os.ReadFile(filepath.Join(dir, "outside")); err != nil || string(content) != "untouched" {
			t.Errorf("the file outside is %q, %v", content, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("beside the root there is %v, %v", entries, err)
		}
	})
}

// waits reports whether a poll of these subscriptions waits for a clock.
func waits(memory []byte, subscriptions, count uint64) bool {
	at := uint64(uint32(subscriptions))
	for range uint32(count) {
		if at+48 > uint64(len(memory)) {
			return false // a trap
		}
		if memory[at+8] == 0 && binary.LittleEndian.Uint64(memory[at+24:]) > 1e6 {
			return true
		}
		at += 48
	}
	return false
}

// fuzzedArguments takes arguments from bytes: small ones, ones near the end of the memory, and any.
func fuzzedArguments(f function, from []byte) []uint64 {
	var arguments []uint64
	for range f.params {
		kind, value := from[0], binary.LittleEndian.Uint64(from[1:9])
		from = append(from[5:len(from):len(from)], from[:5]...)
		switch kind % 4 {
		case 0:
			value %= 8
		case 1:
			value %= pages << 16
		case 2:
			value = pages<<16 - value%64
		}
		arguments = append(arguments, value)
	}
	return arguments
}
