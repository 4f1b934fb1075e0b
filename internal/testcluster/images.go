package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

// Import imports the images of a tar, as [testguest.WriteImage] writes it, into the node's containerd.
func (c *Cluster) Import(ctx context.Context, tarPath string) error {
	file, err := os.Open(tarPath)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := c.ImportFrom(ctx, file); err != nil {
		return fmt.Errorf("import %s: %w", tarPath, err)
	}
	return nil
}

// ImportFrom is [Cluster.Import] of a stream. Flags go to "ctr images import", as in --all-platforms.
func (c *Cluster) ImportFrom(ctx context.Context, tar io.Reader, flags ...string) error {
	args := append([]string{"--namespace", containerdNamespace, "images", "import"}, flags...)
	command := c.NodeCommand(ctx, "/usr/local/bin/ctr", append(args, "-")...)
	command.Stdin = tar
	return c.output(command)
}

// ImportImage packs an image and imports it.
func (c *Cluster) ImportImage(ctx context.Context, ref string, opts testguest.ImageOpts) error {
	dir, err := os.MkdirTemp("", "testcluster-")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "image.tar")
	err = testguest.WriteImage(path, ref, opts)
	if err == nil {
		err = c.Import(ctx, path)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// upImages imports the pause image and those of Argo.
func (c *Cluster) upImages(ctx context.Context) (string, error) {
	pause, err := testguest.PauseImage()
	if err != nil {
		return "", err
	}
	images := map[string]testguest.ImageOpts{pauseImage: pause}
	for _, name := range c.state.Argo {
		images[c.argoImage(name, "argoexec")] = c.argoImageOpts(name, "argoexec", "")
		images[c.argoImage(name, "workflow-controller")] = c.argoImageOpts(name, "workflow-controller", "8737")
	}
	var imported []string
	for ref, opts := range images {
		if c.done("image "+ref, "imported") {
			continue
		}
		if err := c.ImportImage(ctx, ref, opts); err != nil {
			return "", err
		}
		if err := c.setDone("image "+ref, "imported"); err != nil {
			return "", err
		}
		imported = append(imported, ref)
	}
	if len(imported) == 0 {
		return "there already", nil
	}
	return fmt.Sprintf("%d imported", len(imported)), nil
}

// argoImage is upstream's name of the image of this version.
func (c *Cluster) argoImage(name, program string) string {
	return fmt.Sprintf("quay.io/argoproj/%s:v%s", program, strings.TrimPrefix(c.state.Tools[name].Version, "v"))
}

// argoImageOpts follows upstream's Dockerfile: the static program on a base with little but /tmp.
func (c *Cluster) argoImageOpts(name, program, user string) testguest.ImageOpts {
	return testguest.ImageOpts{
		Files: map[string]string{"/bin/" + program: c.tool(name, program)},
		Texts: map[string]string{
			"/etc/passwd":        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
			"/etc/group":         "root:x:0:\n",
			"/etc/nsswitch.conf": "hosts: files dns\n",
		},
		Dirs:       []string{"/tmp", "/root"},
		Entrypoint: []string{program},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		WorkingDir: "/",
		User:       user,
	}
}
