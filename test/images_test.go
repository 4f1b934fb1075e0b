package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

var updateImages = flag.Bool("update-images", false, "write the table of docs/images.md from what ran")

// greeting is what the guest of every image prints.
const greeting = "hello from C\n"

// greeter is the program of every image.
type greeter struct{ module, component []byte }

func builtGreeter(t *testing.T) greeter {
	t.Helper()
	var g greeter
	var err error
	if g.module, err = os.ReadFile(testguest.Build(t, "hello-c")); err != nil {
		t.Fatal(err)
	}
	if g.component, err = os.ReadFile(testguest.BuildComponent(t, "hello-c")); err != nil {
		t.Fatal(err)
	}
	return g
}

// of returns the program that a format is built for.
func (g greeter) of(format testimage.Format) []byte {
	if format.Component {
		return g.component
	}
	return g.module
}

// cell says what was necessary to run an image in one way: "yes" for nothing, else the extra step.
type cell string

const works cell = "yes"

// builtTwin returns a greeter with another greeting.
func builtTwin(t *testing.T) greeter {
	t.Helper()
	return greeter{
		module:    []byte(onHost(t, testguest.Build(t, "hello-rust"))),
		component: []byte(onHost(t, testguest.BuildComponent(t, "hello-rust"))),
	}
}

// shipped is an image of a format in a registry.
type shipped struct {
	ref   string
	asked string // the reference of a manifest in an index that containerd does not choose itself, else ref
}

func ship(t *testing.T, registry *testregistry.Registry, repository string, format testimage.Format, image *testimage.Image) shipped {
	t.Helper()
	s := shipped{ref: registry.Push(t, repository, image)}
	s.asked = s.ref
	if format.Asks != "" {
		s.asked = registry.Ref(repository + "@" + manifestFor(t, image, format.Asks))
	}
	return s
}

// criID reports whether CRI gives an image its own id, or one id to all images of its format.
func criID(t *testing.T, image, twin *testimage.Image) cell {
	t.Helper()
	if slices.Equal(configsOf(t, image), configsOf(t, twin)) {
		return "shared"
	}
	return "own"
}

func configsOf(t *testing.T, image *testimage.Image) []digest.Digest {
	t.Helper()
	var configs []digest.Digest
	for _, d := range image.Manifests() {
		var manifest ocispec.Manifest
		if err := json.Unmarshal(image.Blobs[d.Digest], &manifest); err != nil {
			t.Fatal(err)
		}
		configs = append(configs, manifest.Config.Digest)
	}
	return configs
}

// The test pulls every format from a registry and runs it with ctr and with CRI, on every containerd. With CRI,
// another image of the format is present. The result is the table in docs/images.md.
func TestImageFormats(t *testing.T) {
	hello, other := builtGreeter(t), builtTwin(t)
	registry := testregistry.Start(t)
	images, twins, ids := map[string]shipped{}, map[string]shipped{}, map[string]cell{}
	for _, format := range testimage.Formats() {
		image, twin := format.Build(hello.of(format)), format.Build(other.of(format))
		images[format.Name] = ship(t, registry, format.Name, format, image)
		// The twin's name sorts before the image's name. If CRI confuses the two images, it takes the first
		// name.
		twins[format.Name] = ship(t, registry, "a/twin-"+format.Name, format, twin)
		ids[format.Name] = criID(t, image, twin)
	}
	cells := map[string]map[string]cell{} // by format, then by column
	var columns []string
	eachInstalledNode(t, func(t *testing.T, node installation) {
		registry.ServeIn(t, node.PID())
		byCtr, byCRI := "ctr "+node.Version, "CRI "+node.Version
		columns = append(columns, byCtr, byCRI)
		pod := runPod(t, node.Node, ourHandler, nil)
		for _, format := range testimage.Formats() {
			t.Run(format.Name, func(t *testing.T) {
				row := cells[format.Name]
				if row == nil {
					row = map[string]cell{}
					cells[format.Name] = row
				}
				image := images[format.Name]
				t.Run("ctr", func(t *testing.T) { row[byCtr] = runWithCtr(t, node, format, image.ref) })
				t.Run("CRI", func(t *testing.T) {
					pulled := pod.pull(twins[format.Name].asked)
					row[byCRI] = runWithCRI(t, pod, format, image.asked)
					if format.Asks != "" {
						row[byCRI] = "`@sha256:…`"
					}
					if err := pod.cri.Remove(pod.ctx, pulled); err != nil {
						t.Error(err)
					}
				})
			})
		}
	})
	if !t.Failed() && !testnode.Narrowed() {
		slices.Sort(columns)
		for name, id := range ids {
			cells[name][idColumn] = id
		}
		checkTable(t, renderTable(append([]string{idColumn}, columns...), cells))
	}
}

// idColumn is the table's column for an image's id.
const idColumn = "CRI's id"

// eachInstalledNode runs the test on every containerd, on a node on which install has run and that has the
// images of pods. The test fails if it leaves anything behind.
func eachInstalledNode(t *testing.T, test func(t *testing.T, node installation)) {
	t.Helper()
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := installedNode(t, version)
			node.NoLeaks(t)
			test(t, node)
		})
	}
}

// manifestFor returns the digest of an index's manifest for a platform.
func manifestFor(t *testing.T, image *testimage.Image, platform string) string {
	t.Helper()
	var index ocispec.Index
	if err := json.Unmarshal(image.Blobs[image.Root.Digest], &index); err != nil {
		t.Fatal(err)
	}
	for _, d := range index.Manifests {
		if d.Platform != nil && platforms.Format(*d.Platform) == platform {
			return d.Digest.String()
		}
	}
	t.Fatalf("the index has no manifest for %s", platform)
	return ""
}

// runWithCtr pulls and runs an image as a developer does, and returns what was necessary.
func runWithCtr(t *testing.T, node installation, format testimage.Format, ref string) cell {
	t.Helper()
	took := works
	if format.NeedsCommand() {
		took = "`command`"
	}
	var platform []string
	var local []string
	if format.Asks != "" {
		platform, took = []string{"--platform", format.Asks}, "`--platform`"
		if strings.Contains(node.configuration, localPull) {
			// The transfer service of this version unpacks only linux images.
			local, took = []string{"--local"}, "`--local --platform`"
		}
	}
	defer node.Ctr(t, "image", "rm", "--sync", ref)
	pull := slices.Concat([]string{"image", "pull", "--plain-http"}, local, platform, []string{ref})
	if got := node.Ctr(t, pull...); got.Code != 0 {
		t.Fatalf("ctr %s: %s", strings.Join(pull, " "), got.Stderr)
	}
	image := ref
	if format.ArtifactConfig {
		// ctr refuses a configuration that is not an image configuration before it calls any shim.
		image = ref + "-adapted"
		imageVerb(t, node.Node, "adapt", ref, "-t", image)
		defer node.Ctr(t, "image", "rm", "--sync", image)
		platform, took = nil, "`image adapt`"
	}
	id := "ctr-" + format.Name
	run := slices.Concat([]string{"run", "--rm", "--runtime", runtime}, platform, []string{image, id}, format.Entry)
	check(t, strings.Join(run, " "), node.Ctr(t, run...), testnode.Result{Stdout: greeting})
	return took
}

// shimCommand returns a command that runs our shim's binary as a user does.
func shimCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path := os.Getenv("CONTAINERD_SHIM_WASM")
	if path == "" {
		root, err := repo.Root()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(root, "bin", "containerd-shim-wasm-v1")
	}
	return exec.CommandContext(t.Context(), path, args...)
}

// runWithCRI pulls and runs an image as a kubelet does, and returns what was necessary.
func runWithCRI(t *testing.T, pod *pod, format testimage.Format, ref string) cell {
	t.Helper()
	here := *pod
	here.t = t
	pod = &here
	pulled, err := pod.cri.Pull(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pod.cri.Remove(pod.ctx, pulled); err != nil {
			t.Error(err)
		}
	}()
	took := works
	if format.NeedsCommand() {
		took = "`command`"
	}
	m, err := pod.tryAdd(way{image: ref, programs: map[string][]string{format.Name: format.Entry}}, format.Name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.remove()
	m.start()
	m.expectExit(0)
	if got := m.output(); got != greeting {
		t.Errorf("%s printed %q, want %q", format.Name, got, greeting)
	}
	return took
}

// output returns what the container has printed to its standard output so far.
func (m member) output() string {
	m.t.Helper()
	log, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(log)) {
		// Time, stream, flags, text (the kubelet's log format).
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 && parts[1] == "stdout" {
			out.WriteString(parts[3])
		}
	}
	return out.String()
}

// renderTable writes one row per format, in the order of testimage.Formats.
func renderTable(columns []string, cells map[string]map[string]cell) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| format | what it is | %s |\n|---|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, format := range testimage.Formats() {
		fmt.Fprintf(&b, "| %s | %s |", format.Name, format.About)
		for _, column := range columns {
			fmt.Fprintf(&b, " %s |", cells[format.Name][column])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// The table is between these lines of docs/images.md.
const tableBegin, tableEnd = "<!-- table of TestImageFormats -->\n", "<!-- end of the table -->\n"

// checkTable compares the table with the one in docs/images.md, or updates the file.
func checkTable(t *testing.T, table string) {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "docs", "images.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	old, after, end := strings.Cut(rest, tableEnd)
	if !ok || !end {
		t.Fatalf("%s has no place for the table", path)
	}
	if *updateImages {
		if err := os.WriteFile(path, []byte(before+tableBegin+table+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table {
		t.Errorf("docs/images.md has another table than what ran; go test ./test -run TestImageFormats -update-images writes it:\n%s", table)
	}
}

// Annotations of other Wasm runtimes have no effect: the entry point decides what a container runs.
func TestImageAnnotations(t *testing.T) {
	eachInstalledNode(t, func(t *testing.T, node installation) {
		pod := runPod(t, node.Node, ourHandler, func(c *criapi.PodSandboxConfig) {
			c.Annotations = map[string]string{"run.oci.handler": "wasm", "module.wasm.image/variant": "compat"}
		})
		for _, w := range []way{asWasm, asNative} {
			m := pod.add(w, "exit", func(c *criapi.ContainerConfig) { c.Annotations = pod.config.Annotations })
			m.start()
			m.expectExit(42)
		}
	})
}
