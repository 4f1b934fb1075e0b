// Package progress passes on what the program that serves artifacts has done, for people who ask why a task is slow. The
// program writes it to a file in memory that the shim has made for it, and the shim reads it when somebody asks: neither
// waits for the other, and nothing is counted twice.
//
// The program may have been taken over: whatever it writes, a reader gets a bounded list or an error.
package progress

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Artifact is what has been done for one artifact.
type Artifact struct {
	Name string
	// Path is where the container has it, and Object where it is stored.
	Path, Object string
	Output       bool `json:",omitempty"`
	// Size is that of an input in its store, 0 if it is not known, in bytes.
	Size int64
	// Moved came from the store or went to it, and Used was read or written by the container, in bytes.
	Moved, Used int64
	// Requests to the store, of which Retries were repeated.
	Requests, Retries int64
	// Hits are reads that found their bytes in memory, Misses those that did not.
	Hits, Misses int64
	// State is a word or a few about an output: as "writing", or Failed and an error.
	State string `json:",omitempty"`
}

// Failed is how the state of an output begins that could not be stored.
const Failed = "failed: "

// size of the file, in bytes.
const size = 64 << 10

// most bounds the artifacts of a list that is read: empty ones take next to nothing in the file.
const most = 1000

// header is the length of the text after it, and its checksum.
const header = 8

// New returns an empty file whose size nobody can change.
func New() (*os.File, error) {
	fd, err := unix.MemfdCreate("progress", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a file for the progress of artifacts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "progress")
	err = f.Truncate(size)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make a file for the progress of artifacts: %w", err)
	}
	return f, nil
}

// Write replaces the list. One that is too long is cut.
func Write(f *os.File, all []Artifact) error {
	text, err := encode(all)
	for err == nil && len(text) > size-header {
		all = all[:len(all)/2]
		text, err = encode(all)
	}
	if err != nil {
		return err
	}
	page := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	page = binary.BigEndian.AppendUint32(page, crc32.ChecksumIEEE(text))
	_, err = f.WriteAt(append(page, text...), 0)
	return err
}

func encode(all []Artifact) ([]byte, error) {
	text, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("encode the progress of artifacts: %w", err)
	}
	return text, nil
}

// errTorn means that the list was being written.
var errTorn = errors.New("the list is incomplete")

// Read returns the list, nil if none has been written.
func Read(f *os.File) ([]Artifact, error) {
	var all []Artifact
	err := errTorn
	for try := 0; err != nil && try < 5; try++ {
		all, err = read(f)
	}
	if err != nil {
		return nil, fmt.Errorf("read the progress of artifacts: %w", err)
	}
	return all, nil
}

func read(f *os.File) ([]Artifact, error) {
	page := make([]byte, size)
	if _, err := f.ReadAt(page, 0); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(page)
	if n == 0 {
		return nil, nil
	}
	if n > size-header {
		return nil, errTorn
	}
	text := page[header : header+n]
	if crc32.ChecksumIEEE(text) != binary.BigEndian.Uint32(page[4:]) {
		return nil, errTorn
	}
	var all []Artifact
	err := json.Unmarshal(text, &all)
	if err == nil && len(all) > most {
		return nil, fmt.Errorf("the list has more than %d artifacts", most)
	}
	return all, err
}

// pause is the time between two looks at what was done.
const pause = time.Second

// Publish writes the list whenever it has changed, until stop is called, which has it written a last time.
func Publish(f *os.File, list func() []Artifact) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var publishing sync.WaitGroup
	publishing.Go(func() { publish(ctx, f, list) })
	return func() {
		cancel()
		publishing.Wait()
	}
}

func publish(ctx context.Context, f *os.File, list func() []Artifact) {
	looks := time.NewTicker(pause)
	defer looks.Stop()
	var last []Artifact
	for ended := false; ; {
		if now := list(); !slices.Equal(now, last) {
			if Write(f, now) != nil {
				return // the file is of no use: nobody sees what is done
			}
			last = now
		}
		if ended {
			return
		}
		select {
		case <-looks.C:
		case <-ctx.Done():
			ended = true
		}
	}
}
