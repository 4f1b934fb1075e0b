package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Limits of reading an index.
const (
	maxDepth      = 3   // of indexes within indexes
	maxCandidates = 256 // manifests
)

// made is the information we have about the image that a container was made from.
type made struct {
	// parents are the names of the snapshots that the container may have been made on; empty if unknown. ""
	// is the parent for an image without files.
	parents []string
	// config is the digest of the image's configuration; empty if unknown.
	config digest.Digest
	// layers is the image's label LayersLabel, which ctr copies to a container; empty if config is set or if
	// the container has no such label.
	layers string
}

// on reports whether a container of an image with that chain id can have been made on the parents.
func (m made) on(chain string) bool { return len(m.parents) == 0 || slices.Contains(m.parents, chain) }

// errOther is returned for an image that is not the one that a container was made from.
var errOther = errors.New("it is another image than the container was made from")

// native is the platform of this node's native programs.
const native = "linux/" + runtime.GOARCH

// candidate is a manifest on this node.
type candidate struct {
	digest   digest.Digest
	size     int64 // in bytes
	manifest ocispec.Manifest
	config   oci.Config
	platform string // "" if neither the index nor the configuration names one
}

// sure reports whether the manifest's configuration belongs to the manifest's layers and to no others.
func (c candidate) sure() bool { return c.config.IsOf(c.manifest.Layers) }

// choose returns the manifest that a container was made from.
func (s *Store) choose(ctx context.Context, target ocispec.Descriptor, made made) (candidate, error) {
	if oci.IsManifest(target.MediaType) {
		c, err := s.manifest(ctx, target, made)
		if errors.Is(err, errOther) {
			err = fmt.Errorf("the name has gone to another image (%s) since the container was made: make the container again: %w", target.Digest, err)
		}
		return c, err
	}
	if !oci.IsIndex(target.MediaType) {
		return candidate{}, fmt.Errorf("%s is no image: it has the media type %q", target.Digest, target.MediaType)
	}
	w := walk{store: s, made: made}
	if err := w.index(ctx, target, 1); err != nil {
		return candidate{}, err
	}
	if len(w.fit) == 0 {
		return candidate{}, w.noneFits(target)
	}
	return slices.MinFunc(w.fit, func(a, b candidate) int { return a.rank() - b.rank() }), nil
}

// walk is a walk through an index.
type walk struct {
	store   *Store
	made    made
	fit     []candidate
	names   []string // of the platforms that the index has
	missing int      // manifests that are not on this node
	broken  error    // the error of one of them
}

func (w *walk) index(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("index %s lies in more than %d others", d.Digest, maxDepth-1)
	}
	index, err := w.store.index(ctx, d)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if len(w.names) == maxCandidates {
			return fmt.Errorf("index has more than %d manifests", maxCandidates)
		}
		if err := w.entry(ctx, d, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if oci.IsAttestation(d) {
		return nil
	}
	w.names = append(w.names, nameOf(d))
	switch {
	case oci.IsIndex(d.MediaType):
		err := w.index(ctx, d, depth+1)
		if errors.Is(err, errMissing) {
			w.missing++
			return nil
		}
		return err
	case !oci.IsManifest(d.MediaType):
		return nil
	}
	c, err := w.store.manifest(ctx, d, w.made)
	switch {
	case err == nil:
		w.fit = append(w.fit, c)
	case errors.Is(err, errOther):
	case errors.Is(err, errMissing):
		w.missing++
	case ctx.Err() != nil:
		return err
	default:
		// Go on: another manifest may be the container's.
		w.broken = err
	}
	return nil
}

func nameOf(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return "one without a platform"
	}
	return oci.FormatPlatform(*d.Platform)
}

func (w *walk) noneFits(target ocispec.Descriptor) error {
	names := slices.Compact(slices.Sorted(slices.Values(w.names)))
	has := strings.Join(names, ", ")
	switch {
	case w.broken != nil:
		return w.broken
	case len(w.names) == 0:
		return fmt.Errorf("index %s is empty", target.Digest)
	case w.missing == len(w.names):
		return fmt.Errorf("index %s has no manifest for a platform of this node on it (it has %s): pull it with --platform", target.Digest, has)
	}
	return fmt.Errorf("index %s has no manifest that the container can have been made from (it has %s): make the container again: %w", target.Digest, has, errOther)
}

// rank orders the manifests that fit: Wasm platforms, then manifests with Wasm layers, then the node's own
// platform.
func (c candidate) rank() int {
	platforms := oci.WasmPlatforms()
	if i := slices.Index(platforms, c.platform); i >= 0 {
		return i
	}
	rank := len(platforms)
	if len(oci.Modules(c.manifest)) == 0 {
		rank += 2
	}
	if c.platform != native {
		rank++
	}
	return rank
}
