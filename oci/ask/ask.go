// Package ask is the protocol between the daemon and the program that speaks to containerd for it. The daemon
// starts the program with a question, a verb and its flags, and reads the answer from its standard output. If
// something fails, the program writes one line to its standard error. Both ends import this package. It never
// connects to anything itself.
package ask

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// The verbs of the questions.
const (
	FindVerb  = "find"
	KeepVerb  = "keep"
	TraceVerb = "trace"
	ViewVerb  = "view"
	WatchVerb = "watch"
)

// FindLimit is how long containerd may take to answer Find. A container waits for the answer.
const FindLimit = 10 * time.Second

// Question is a question of the daemon.
type Question interface {
	// Verb returns the program's verb for the question.
	Verb() string
	// Flags adds the flags of the question to a set. They are parsed into the question; its values are their
	// defaults.
	Flags(set *flag.FlagSet)
}

// Find asks for the Wasm layers of a container's image, or of an image: an [oci.Found]. For a container, the
// program then notes the answer in containerd before it exits.
type Find struct{ Container, Image string }

func (*Find) Verb() string { return FindVerb }

func (f *Find) Flags(set *flag.FlagSet) {
	set.StringVar(&f.Container, "container", f.Container, "the `id` of a container")
	set.StringVar(&f.Image, "image", f.Image, "the `name` of an image in containerd")
}

// Keep asks the program to store an entry of the compile cache with an image in containerd. The program waits
// for [Begin] before it stores anything.
type Keep struct {
	Cache     string // the cache's folder
	CacheSize int64  // in bytes
	Engine    string
	Module    string // the entry
	Key       string // identifies the image
	Container string // the container whose image it is, unless Image is set
	Image     string
	Target    string // the digest that Image referred to; empty for the current one
}

func (*Keep) Verb() string { return KeepVerb }

func (k *Keep) Flags(set *flag.FlagSet) {
	set.StringVar(&k.Cache, "cache", k.Cache, "the compile cache's `folder`")
	set.Int64Var(&k.CacheSize, "size", k.CacheSize, "how many `bytes` the cache may hold")
	set.StringVar(&k.Engine, "engine", k.Engine, "the engine's `key`")
	set.StringVar(&k.Module, "module", k.Module, "the module's `key` in the cache")
	set.StringVar(&k.Key, "key", k.Key, "what tells the image apart")
	set.StringVar(&k.Container, "container", k.Container, "the container's `id`")
	set.StringVar(&k.Image, "image", k.Image, "the `name` of the image, instead of a container")
	set.StringVar(&k.Target, "target", k.Target, "the `digest` that the image's name stood for; what it stands for now by default")
}

// View asks for a view of an image's files: an [oci.View], which lasts until the program's input ends.
type View struct{ Image, Snapshotter string }

func (*View) Verb() string { return ViewVerb }

func (v *View) Flags(set *flag.FlagSet) {
	set.StringVar(&v.Image, "image", v.Image, "the `name` of an image in containerd")
	set.StringVar(&v.Snapshotter, "snapshotter", v.Snapshotter, "the `name` of the snapshotter that has unpacked it")
}

// Watch asks for the names of the images in containerd, and then for the name of each new one, until the
// program is killed.
type Watch struct{}

func (*Watch) Verb() string { return WatchVerb }

func (*Watch) Flags(*flag.FlagSet) {}

// Trace has the program tell an OpenTelemetry collector what was done for the artifacts of a container: a [Traced], on its
// input.
type Trace struct{}

func (*Trace) Verb() string { return TraceVerb }

func (*Trace) Flags(*flag.FlagSet) {}

// Line returns the program's arguments for a question about a namespace of a containerd.
func Line(c endpoint.Containerd, q Question) []string {
	line := []string{q.Verb(), "--address", c.Address, "--namespace", c.Namespace}
	set := flag.NewFlagSet(q.Verb(), flag.ContinueOnError)
	q.Flags(set)
	set.VisitAll(func(f *flag.Flag) {
		if value := f.Value.String(); value != "" {
			line = append(line, "--"+f.Name, value)
		}
	})
	return line
}

// Traced are the artifacts of a container that has ended.
type Traced struct {
	Namespace, Pod string // of Kubernetes, "" outside of a pod
	Container, ID  string
	Began, Ended   time.Time // of the service of its artifacts
	Artifacts      []progress.Artifact
}

// WriteTraced writes what Trace has to tell.
func WriteTraced(w io.Writer, of Traced) error { return json.NewEncoder(w).Encode(of) }

// ReadTraced reads it.
func ReadTraced(r io.Reader) (of Traced, err error) {
	err = json.NewDecoder(r).Decode(&of)
	return of, err
}

// begin is the line that starts Keep.
const begin = "begin\n"

// Begin makes the program store the entry of Keep. If its input is closed instead, it stores nothing.
func Begin(w io.Writer) error {
	_, err := io.WriteString(w, begin)
	return err
}

// AwaitBegin waits for Begin, and reports whether the program is to proceed.
func AwaitBegin(r io.Reader) (bool, error) {
	word := make([]byte, len(begin))
	n, err := io.ReadFull(r, word)
	switch {
	case errors.Is(err, io.EOF):
		return false, nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return false, fmt.Errorf("wait to begin: %w", err)
	case string(word[:n]) != begin:
		return false, fmt.Errorf("wait to begin: the daemon says %q", word[:n])
	}
	return true, nil
}

// WriteFound writes the answer to Find.
func WriteFound(w io.Writer, found oci.Found) error { return json.NewEncoder(w).Encode(found) }

// ReadFound reads the answer to Find. The program may keep running after it.
func ReadFound(r io.Reader) (found oci.Found, err error) {
	err = json.NewDecoder(r).Decode(&found)
	return found, err
}

// WriteView writes the answer to View.
func WriteView(w io.Writer, view oci.View) error { return json.NewEncoder(w).Encode(view) }

// ReadView reads the answer to View. The error is io.EOF if there is none.
func ReadView(r io.Reader) (view oci.View, err error) {
	err = json.NewDecoder(r).Decode(&view)
	return view, err
}

// WriteImage adds an image's name to the answer to Watch.
func WriteImage(w io.Writer, name string) error {
	_, err := fmt.Fprintln(w, name)
	return err
}

// ReadImages reads the answer to Watch, to its end.
func ReadImages(r io.Reader) iter.Seq[string] {
	return func(yield func(string) bool) {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if !yield(lines.Text()) {
				return
			}
		}
	}
}
