// Package control is the protocol between the daemon and its workers over a socket pair: the daemon's order,
// the worker's report and, for a guest, the start byte. It contains no engine and never reads a module; both
// sides import it.
package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// descriptor is the number of a worker's end of the socket.
const descriptor = 3

// Roles of a worker. They are passed in its environment, because its arguments are the guest's, for people
// who look at the process list.
const (
	RoleEnv     = "WASM_WORKER_ROLE"
	RoleRun     = "run"
	RoleCompile = "compile"
	// RoleKill sends a signal inside the container, as argoexec's kill command does.
	RoleKill = "kill"
)

// The lowest limits of a container that a worker with a guest starts under. Of LeastThreads, the Go runtime
// uses five to eight and the engine four. Of LeastFiles, the worker uses a third; a guest may open the others
// before it gets EMFILE, as a native program does.
const (
	LeastThreads = 16
	LeastFiles   = 32
)

// WorkerPath is the path of the worker's own program in its root. The daemon puts it there; a worker that
// starts another one uses it.
const WorkerPath = "/worker"

// CompileThreadsEnv is the variable that tells a preparer's engine how many threads to compile with. Its name
// is rayon's; without it, rayon starts one thread for each of the node's processors. More than
// MostCompileThreads gain little.
const (
	CompileThreadsEnv  = "RAYON_NUM_THREADS"
	MostCompileThreads = 32
)

// maxMessage is the limit of a message in bytes: larger than a process's arguments and environment can be,
// and small enough that a hostile peer does no harm.
const maxMessage = 16 << 20

// maxReport is the limit of a report in bytes. The worker may be hostile, and the daemon needs up to 30 times as
// much memory to decode it. The texts of a report are cut to maxText bytes and its names of functions have
// functionsBytes, each of which JSON encodes with 6 bytes at most.
const (
	maxReport = 512 << 10
	maxText   = 16 << 10
)

// maxError is the limit of the text of a report's error in other errors, in bytes: a module may have long names.
const maxError = 4 << 10

// Run is the order to run a module.
type Run struct {
	// Code is the path of the module's machine code, Root the directory that
	// becomes the guest's "/".
	Code, Root string
	Args, Env  []string
	// Cwd is the guest's working directory, an absolute path below Root.
	Cwd string
	// Function is the export to call, "_start" for a command.
	Function string
	// MemoryLimit is how many bytes of linear memory the guest may have at most; 0 is no limit.
	MemoryLimit uint64
	// Emissary is the container's whole command line of Argo's emissary; Args is its end. If it is set, the
	// worker replaces argoexec and runs the guest as a child. It is empty for a container that is not Argo's.
	Emissary []string `json:",omitempty"`
}

// Compile is the order to compile the module on standard input to standard
// output.
type Compile struct {
	// Name is the module's name in errors.
	Name string
	// Digest is the sha256 of standard input, in hex.
	Digest string
	// Compression is the compression of standard input: gzip, zstd or zip; empty for none.
	Compression string `json:",omitempty"`
	// MaxSize is how many bytes the module may have, uncompressed.
	MaxSize int64
	// Trusted allows machine code instead of a module on standard input.
	Trusted bool `json:",omitempty"`
	// Config is the place where the operator of the node configures the limits and the allowed machine code.
	Config string
	// Function is the export that is going to be called, "_start" for a command, nil if any may be called.
	Function *string `json:",omitempty"`
}

// Distrust returns the error for machine code that the operator has not allowed.
func (c Compile) Distrust() error {
	return fmt.Errorf("%s is precompiled machine code (a .cwasm file), not WebAssembly: it would run with the engine's own rights, not the guest's; "+
		"use the .wasm file it was made from or, if you trust who made it, add \"sha256:%s\" to precompiled in %s", c.Name, c.Digest, c.Config)
}

// Report is a worker's answer to an order.
type Report struct {
	// Error is empty when the order was carried out.
	Error string `json:",omitempty"`
	// Errno is the kernel's error number, if a system call failed.
	Errno syscall.Errno `json:",omitempty"`
	// Refusal is the reason why no container could run the module, under any name and for any caller: the
	// error without the module's name.
	Refusal string `json:",omitempty"`
	// Module describes the module of the code.
	Module *Module `json:",omitempty"`
	// Artifacts says what the input artifacts are that the worker can serve, in the order of its template.
	Artifacts []Artifact `json:",omitempty"`
	// Upload is one that has begun or ended. Such a report is not the answer to an order.
	Upload *Upload `json:",omitempty"`
}

// Artifact says what the root of an artifact's file system is.
type Artifact string

// An artifact of no kind is not there, and need not be.
const (
	NoArtifact Artifact = ""
	File       Artifact = "file"
	Folder     Artifact = "folder"
)

// Err returns the report's error, nil if there is none. It wraps Errno.
func (r Report) Err() error {
	if r.Error == "" {
		return nil
	}
	return reported{text.Short(r.Error, maxError), r.Errno}
}

type reported struct {
	text  string
	errno syscall.Errno
}

func (r reported) Error() string { return r.text }

func (r reported) Is(target error) bool { return r.errno != 0 && target == error(r.errno) }

// send writes one message of at most limit bytes.
func send(w io.Writer, message any, limit int) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > limit {
		return fmt.Errorf("message of %d bytes is too long", len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// next returns the next message, of at most limit bytes.
func next[T any](r io.Reader, limit int) (T, error) {
	var message T
	err := receive(r, &message, limit)
	return message, err
}

// receive reads one message of at most limit bytes into message. It returns io.EOF if the peer has closed without a
// further message.
func receive(r io.Reader, message any, limit int) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("receive message: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if int64(n) > int64(limit) {
		return fmt.Errorf("receive message: %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // EOF after the size is a truncated message
		}
		return fmt.Errorf("receive message: %w", err)
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
