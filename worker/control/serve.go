package control

import (
	"fmt"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
)

// RoleServe is the role of a program that serves artifacts which a pod asks for by annotation. The conversation is Serve,
// Start, Report once the artifacts have been found and are served, Finish when the container has ended, and a second
// Report; meanwhile come reports of uploads. If the daemon's end closes before Finish, the program aborts its uploads and ends.
const RoleServe = "serve-artifacts"

// Serve is the order to serve the artifacts of a container. The worker's further descriptors are those of /dev/fuse in the
// order of Mounts, the folder for what is not uploaded yet, and the file for package progress.
type Serve struct {
	Mounts    []ServedMount
	UID, GID  uint32 // of the files
	SpoolSize int64  // in bytes
	// Authorities are the certificates of authorities that the artifacts name by number, in PEM.
	Authorities [][]byte `json:",omitempty"`
	// Abort are uploads that another program has left unfinished. If there are any, the program aborts them, reports and
	// ends: it serves nothing, and gets no further descriptors.
	Abort []Upload `json:",omitempty"`
}

// Upload is an upload in parts to a store, which is invisible until it is completed.
type Upload struct {
	Artifact        string // its name
	Bucket, Key, ID string
	Ended           bool `json:",omitempty"`
}

// ServedMount is one file system: an input, or the outputs below one folder.
type ServedMount struct {
	Path      string // in the container, for messages
	Artifacts []ServedArtifact
}

// ServedArtifact is an artifact and how to get at it.
type ServedArtifact struct {
	request.Artifact
	Access Access
}

// Access is how to get at a store. The program gets it by the socket, and no other process of the container sees it.
type Access struct {
	AccessKey, SecretKey, SessionToken string `json:",omitempty"`
	// CustomerKey is the key for SSE-C.
	CustomerKey []byte `json:",omitempty"`
	// RoleARN and Token are those of a web identity, for which the service at STS gives credentials.
	RoleARN, Token, STS string `json:",omitempty"`
	// Instance takes credentials from the metadata service of the cloud's instance.
	Instance bool `json:",omitempty"`
	// Authorities is the number, from 1, of the order's Authorities by which the store is checked; 0 is none.
	Authorities int `json:",omitempty"`
}

// Stores reports whether an object is the artifact's, an output's: its own, or one of its folder.
func (a ServedArtifact) Stores(bucket, key string) bool {
	return bucket == a.At.Bucket && (key == a.At.Key || a.Folder && !a.Archive && strings.HasPrefix(key, a.At.Key))
}

// AuthoritiesOf returns the certificates by which the store of an artifact is checked, nil for none.
func (s Serve) AuthoritiesOf(a Access) []byte {
	if a.Authorities < 1 || a.Authorities > len(s.Authorities) {
		return nil
	}
	return s.Authorities[a.Authorities-1]
}

// maxServeText bounds the texts of an order to serve, in bytes, each of which JSON encodes with 6 at most. The certificates
// of authorities have a bound of their own.
const maxServeText = 512 << 10

// Check returns an error for an order whose texts are too long, before it is encoded.
func (s Serve) Check() error {
	size := 0
	for _, m := range s.Mounts {
		size += len(m.Path)
		for _, a := range m.Artifacts {
			for _, text := range []string{
				a.Name, a.Container, a.Path, a.At.Endpoint, a.At.Region, a.At.Credentials, a.At.Bucket, a.At.Key, a.At.Version, a.At.Encryption.KeyID,
				a.Access.AccessKey, a.Access.SecretKey, a.Access.SessionToken, string(a.Access.CustomerKey), a.Access.RoleARN, a.Access.Token, a.Access.STS,
			} {
				size += len(text)
			}
		}
	}
	if size > maxServeText {
		return fmt.Errorf("the annotations and the credentials of the container's artifacts have %d bytes together: %d are allowed", size, maxServeText)
	}
	return nil
}

// Finish says how the container has ended.
type Finish struct{ Succeeded bool }

// Serve orders a worker to serve artifacts after Start.
func (d Daemon) Serve(order Serve) error { return send(d, order, maxMessage) }

// Finish has a worker store the outputs.
func (d Daemon) Finish(f Finish) error { return send(d, f, maxMessage) }

// Serve returns the order to serve artifacts.
func (w Worker) Serve() (Serve, error) { return next[Serve](w, maxMessage) }

// AwaitFinish waits until the container has ended. The error is io.EOF if the daemon has closed its end.
func (w Worker) AwaitFinish() (Finish, error) { return next[Finish](w, maxMessage) }
