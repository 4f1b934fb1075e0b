package testguest

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ImageOpts are the contents and the config of an image. The zero value is an image of one empty layer.
type ImageOpts struct {
	Files map[string]string // path in the rootfs → file on this machine; its permission bits are kept
	Texts map[string]string // path in the rootfs → content of a plain file
	Links map[string]string // path in the rootfs → target of a symbolic link
	Dirs  []string          // folders; the parents of files are made in any case

	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	WorkingDir string
	User       string
	Platform   string // os/architecture; this machine's if empty
}

// WriteImage packs an image called ref (as in example.com/tests/hello:latest) into a tar that
// "ctr image import" takes. The same options give the same image.
func WriteImage(tarPath, ref string, opts ImageOpts) error {
	if err := writeImage(tarPath, ref, opts); err != nil {
		return fmt.Errorf("pack image %s: %w", ref, err)
	}
	return nil
}

func writeImage(tarPath, ref string, opts ImageOpts) error {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return err
	}
	content, err := opts.layer()
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return err
	}
	image, err := mutate.ConfigFile(empty.Image, opts.config())
	if err != nil {
		return err
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return err
	}
	return tarball.WriteToFile(tarPath, tag, image)
}

func (o ImageOpts) config() *v1.ConfigFile {
	system, architecture, _ := strings.Cut(o.Platform, "/")
	if o.Platform == "" {
		system, architecture = "linux", runtime.GOARCH
	}
	return &v1.ConfigFile{
		OS:           system,
		Architecture: architecture,
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: o.Entrypoint,
			Cmd:        o.Cmd,
			Env:        o.Env,
			WorkingDir: o.WorkingDir,
			User:       o.User,
		},
	}
}

// layer returns the rootfs as a tar, parents before children, without times.
func (o ImageOpts) layer() ([]byte, error) {
	entries := map[string]*tar.Header{}
	content := map[string][]byte{}
	add := func(at string, header tar.Header) string {
		at = strings.TrimPrefix(path.Clean("/"+at), "/")
		header.Name = at
		entries[at] = &header
		return at
	}
	for _, dir := range o.Dirs {
		add(dir, tar.Header{Typeflag: tar.TypeDir, Mode: 0o755})
	}
	for at, target := range o.Links {
		add(at, tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777})
	}
	for at, value := range o.Texts {
		at = add(at, tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(value))})
		content[at] = []byte(value)
	}
	for at, file := range o.Files {
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		at = add(at, tar.Header{Typeflag: tar.TypeReg, Mode: int64(info.Mode().Perm()), Size: info.Size()})
		content[at] = value
	}
	for at := range maps.Clone(entries) {
		for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
			if entries[dir] == nil {
				add(dir, tar.Header{Typeflag: tar.TypeDir, Mode: 0o755})
			}
		}
	}
	return writeTar(entries, content)
}

func writeTar(entries map[string]*tar.Header, content map[string][]byte) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, at := range slices.Sorted(maps.Keys(entries)) {
		if err := archive.WriteHeader(entries[at]); err != nil {
			return nil, err
		}
		if _, err := archive.Write(content[at]); err != nil {
			return nil, err
		}
	}
	return buffer.Bytes(), archive.Close()
}

// WasmImage returns the options of an image that holds the named guest as /app.wasm, its entry point.
func WasmImage(guest string, cmd ...string) (ImageOpts, error) {
	file, err := File(guest)
	if err != nil {
		return ImageOpts{}, err
	}
	return ImageOpts{
		Files:      map[string]string{"/app.wasm": file},
		Entrypoint: []string{"/app.wasm"},
		Cmd:        cmd,
	}, nil
}

// BusyboxImage returns the options of a native image with Debian's static busybox and a link for every
// applet, /tmp and a root user. By default the image runs "sh". /hello is a static native program that
// prints "hello from native C".
func BusyboxImage() (ImageOpts, error) {
	hello, err := File("hello-native")
	if err != nil {
		return ImageOpts{}, err
	}
	busybox, err := staticBusybox()
	if err != nil {
		return ImageOpts{}, err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return ImageOpts{}, fmt.Errorf("ask %s for its applets: %w", busybox, err)
	}
	opts := ImageOpts{
		Files: map[string]string{"/bin/busybox": busybox, "/hello": hello},
		Texts: map[string]string{
			"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
			"/etc/group":  "root:x:0:\nnogroup:x:65534:\n",
		},
		Links: map[string]string{},
		Dirs:  []string{"/tmp", "/root", "/proc", "/sys", "/dev"},
		Cmd:   []string{"sh"},
		Env:   []string{"PATH=/bin"},
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			opts.Links["/bin/"+applet] = "busybox"
		}
	}
	return opts, nil
}

// PauseImage returns the options of an image for a pod's pause container: one static program that waits
// for a signal and collects orphans.
func PauseImage() (ImageOpts, error) {
	pause, err := File("pause")
	if err != nil {
		return ImageOpts{}, err
	}
	return ImageOpts{Files: map[string]string{"/pause": pause}, Entrypoint: []string{"/pause"}, User: "65535:65535"}, nil
}

// staticBusybox finds a busybox that needs no libraries. The package "busybox" has one that needs them.
func staticBusybox() (string, error) {
	found, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("%w (hack/deps.sh installs busybox-static)", err)
	}
	if found, err = filepath.Abs(found); err != nil {
		return "", err
	}
	file, err := elf.Open(found)
	if err != nil {
		return "", err
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err == nil && len(libraries) > 0 {
		return "", fmt.Errorf("%s needs %v: install busybox-static (hack/deps.sh does)", found, libraries)
	}
	return found, nil
}
