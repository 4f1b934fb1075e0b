package request

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/wasmshim/containerd-shim-wasm/internal/place"
)

// Prefix is the beginning of an annotation that asks for an artifact. Its name follows.
const Prefix = "wasm.shim/artifact."

// Artifact is one artifact that a pod asks for.
type Artifact struct {
	Name      string
	Container string // that has it, "" for each Wasm container of the pod
	Output    bool   // the container writes it
	Path      string // in the container, clean
	At        Place
	Folder    bool // all objects whose keys begin with the place's key
	// Archive is for an output that is a folder: it becomes one object, a .tgz.
	Archive bool
	// Always stores an output even if the container fails.
	Always bool
}

// Place is where an artifact is stored.
type Place struct {
	Endpoint string // a URL without a path, "" for the node's default
	Region   string // "" for the store's own
	// Credentials says where those for the store come from, "" for what the pod or the node has.
	Credentials string
	Style       Style
	Bucket      string
	Key         string // of a folder "", or it ends with "/"
	Version     string // of the object, "" for the newest
	// Encryption of the object in the store.
	Encryption Encryption
}

// URI names the place for people, without its options.
func (p Place) URI() string { return scheme + p.Bucket + "/" + p.Key }

// Style is how requests name a bucket.
type Style string

// The styles of Amazon S3. By default the endpoint decides.
const (
	AutoStyle    Style = ""
	PathStyle    Style = "path"
	VirtualStyle Style = "virtual"
)

// Encryption is that of an object in the store.
type Encryption struct {
	Kind  EncryptionKind
	KeyID string // of KMS, "" for the store's default
}

// EncryptionKind says who has the key, "" for no encryption.
type EncryptionKind string

// The kinds of Amazon S3.
const (
	StoreEncryption    EncryptionKind = "s3"  // SSE-S3
	KMSEncryption      EncryptionKind = "kms" // SSE-KMS
	CustomerEncryption EncryptionKind = "c"   // SSE-C: the key comes with the credentials
)

// most bounds the artifacts of a container: each takes a descriptor and a connection.
const most = 64

// Asked reports whether annotations ask for any artifact.
func Asked(annotations map[string]string) bool {
	for annotation := range annotations {
		if strings.HasPrefix(annotation, Prefix) {
			return true
		}
	}
	return false
}

// Parse returns the artifacts that annotations ask for, for a container, by name.
func Parse(annotations map[string]string, container string) ([]Artifact, error) {
	var all []Artifact
	for annotation, text := range annotations {
		name, ok := strings.CutPrefix(annotation, Prefix)
		if !ok {
			continue
		}
		a, err := parse(name, text)
		if err != nil {
			return nil, fmt.Errorf("annotation %.100q: %w", annotation, err)
		}
		if a.Container == "" || a.Container == container {
			all = append(all, a)
		}
	}
	if len(all) > most {
		return nil, fmt.Errorf("%d annotations %s*: a container may have %d artifacts", len(all), Prefix, most)
	}
	slices.SortFunc(all, func(a, b Artifact) int { return strings.Compare(a.Name, b.Name) })
	return all, disjoint(all)
}

// disjoint returns an error for two artifacts that cannot both be.
func disjoint(all []Artifact) error {
	for i, a := range all {
		for _, b := range all[:i] {
			if err := a.clash(b); err != nil {
				return fmt.Errorf("annotations %s%s and %s%s: %w", Prefix, b.Name, Prefix, a.Name, err)
			}
		}
	}
	return nil
}

func (a Artifact) clash(b Artifact) error {
	switch {
	case place.Nested(a.Path, b.Path):
		return fmt.Errorf("both are at %s, or one is in the other's folder", b.Path)
	case a.Output != b.Output && place.Nested(a.Mountpoint(), b.Mountpoint()):
		return fmt.Errorf("an output needs a folder without inputs, and %s is in the folder of %s", b.Path, a.Path)
	case a.Output && b.Output && a.Mountpoint() != b.Mountpoint() && place.Nested(a.Mountpoint(), b.Mountpoint()):
		return fmt.Errorf("the folder of %s is in that of %s: put both outputs into one folder, or into folders beside each other", b.Path, a.Path)
	case (a.Output || b.Output) && a.At.overlaps(b.At):
		return fmt.Errorf("both are %s, and at least one is written", b.At.URI())
	}
	return nil
}

// overlaps reports whether two places may share an object.
func (p Place) overlaps(q Place) bool {
	covers := func(p, q Place) bool {
		return p.Key == q.Key || (p.Key == "" || strings.HasSuffix(p.Key, "/")) && strings.HasPrefix(q.Key, p.Key)
	}
	return p.Endpoint == q.Endpoint && p.Bucket == q.Bucket && (covers(p, q) || covers(q, p))
}

// Mountpoint is the folder or file of the container over which a file system is mounted: for an output that is a file, the
// folder that it is in.
func (a Artifact) Mountpoint() string {
	if a.Output && !a.Folder {
		return path.Dir(a.Path)
	}
	return a.Path
}

const arrow = "->"

func parse(name, text string) (Artifact, error) {
	a := Artifact{Name: name}
	if name == "" || len(name) > 63 || strings.Trim(name, nameRunes) != "" {
		return a, errors.New("its name may have letters, digits, '-', '_' and '.', 63 at most")
	}
	if err := printable(text); err != nil {
		return a, err
	}
	text = strings.TrimSpace(text)
	var uri, file string
	if strings.HasPrefix(text, scheme) {
		i := strings.LastIndex(text, arrow)
		if i < 0 {
			return a, fmt.Errorf("%.200q is not s3://BUCKET/KEY -> /PATH", text)
		}
		uri, file = text[:i], text[i+len(arrow):]
	} else {
		var ok bool
		if file, uri, ok = strings.Cut(text, arrow); !ok {
			return a, fmt.Errorf("%.200q is neither s3://BUCKET/KEY -> /PATH nor /PATH -> s3://BUCKET/KEY", text)
		}
		a.Output = true
	}
	if err := a.parseURI(strings.TrimSpace(uri)); err != nil {
		return a, err
	}
	return a, a.parsePath(strings.TrimSpace(file))
}

const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

func printable(text string) error {
	if !utf8.ValidString(text) {
		return errors.New("it is not UTF-8")
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%.200q has control characters", text)
	}
	return nil
}

func (a *Artifact) parsePath(text string) error {
	switch {
	case !path.IsAbs(text):
		return fmt.Errorf("%.200q is not an absolute path of the container", text)
	case slices.Contains(strings.Split(text, "/"), ".."):
		return fmt.Errorf("the path %.200q has \"..\"", text)
	case len(text) >= 4096:
		return errors.New("the path has 4096 bytes or more")
	}
	a.Path = path.Clean(text)
	at := a.Mountpoint()
	if a.Path == "/" || at == "/" {
		return fmt.Errorf("%s is in the container's root folder, over which nothing can be mounted: choose a path like /out/result", a.Path)
	}
	if p, system := place.OfSystem(at); system {
		return fmt.Errorf("%s is at %s, which the system mounts itself", a.Path, p)
	}
	if !a.Folder && strings.HasSuffix(text, "/") {
		return fmt.Errorf("%.200q ends with a slash, which stands for a folder, and the key does not", text)
	}
	return nil
}
