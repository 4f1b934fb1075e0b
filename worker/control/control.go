// Package control is what the daemon and its workers say to each other over a
// socket pair: the daemon's order, the worker's report and, for a guest, the
// word to start. It holds no engine and never touches a module; both sides
// import it.
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

// descriptor is the number under which a worker finds its end of the socket.
const descriptor = 3

// Roles of a worker, given in its environment: its arguments are the guest's, for
// people who look at the process list.
const (
	RoleEnv     = "WASM_WORKER_ROLE"
	RoleRun     = "run"
	RoleCompile = "compile"
	// RoleKill sends a signal inside the container, as argoexec's kill command.
	RoleKill = "kill"
)

// What a worker with a guest needs of the limits of its container, and nothing starts with less. Of
// LeastThreads, five to eight are the Go runtime's and four the engine's; of LeastFiles, a third is
// used, and the others are what a guest may open before it sees EMFILE, as a native program does.
const (
	LeastThreads = 16
	LeastFiles   = 32
)

// WorkerPath is the worker's own program in the root that it is given: the daemon puts it there, and a worker
// that starts another one finds it there.
const WorkerPath = "/worker"

// CompileThreadsEnv, of a preparer, is how many threads the engine compiles with: rayon's own name, which
// without it starts one for each of the node's processors. More than MostCompileThreads gain little.
const (
	CompileThreadsEnv  = "RAYON_NUM_THREADS"
	MostCompileThreads = 32
)

// maxMessage bounds a message: more than a process's arguments and environment
// can be, and little enough for a hostile peer not to matter.
const maxMessage = 16 << 20

// maxError bounds the text of a report's error, in bytes: the worker may be hostile, and a module may
// have long names.
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
	// MemoryLimit is the most linear memory, in bytes, that the guest may grow
	// to; 0 is no limit.
	MemoryLimit uint64
	// Emissary is the whole command line of Argo's emissary that the container was
	// given, of which Args is the end: the worker takes argoexec's part and runs
	// the guest as a child. Empty for a container that is not Argo's.
	Emissary []string `json:",omitempty"`
}

// Compile is the order to compile the module on standard input to standard
// output.
type Compile struct {
	// Name is how errors call the module.
	Name string
	// Digest is the sha256 of what is on standard input, in hex.
	Digest string
	// Compression is how standard input holds the module: gzip, zstd, zip, or as it
	// is if empty.
	Compression string `json:",omitempty"`
	// MaxSize is how many bytes the module may have, uncompressed.
	MaxSize int64
	// Trusted says that standard input may hold machine code instead of a module.
	Trusted bool `json:",omitempty"`
	// Config is where the operator of the node changes what is allowed.
	Config string
	// Function is the export that is going to be called, "_start" for a command, nil for
	// whatever.
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
	// Errno is what the kernel said, if that is what went wrong.
	Errno syscall.Errno `json:",omitempty"`
	// Refusal is why no container could run the module, whatever it is called and whoever asks:
	// the error without the module's name.
	Refusal string `json:",omitempty"`
	// Module describes what was compiled.
	Module *Module `json:",omitempty"`
}

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

// send writes one message.
func send(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxMessage {
		return fmt.Errorf("message of %d bytes is too long", len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// receive reads one message into message. It returns io.EOF when the peer has
// closed without a further message.
func receive(r io.Reader, message any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("receive message: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return fmt.Errorf("receive message: %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // a size is not the end
		}
		return fmt.Errorf("receive message: %w", err)
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
