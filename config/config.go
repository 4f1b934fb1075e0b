// Package config reads the node's own configuration of the shim, by default
// /etc/containerd-shim-wasm/config.toml.
//
// The file holds the settings that the operator of a node decides and no pod may change. It is read at each
// start of a container, so reading is cheap: one open, one decode, no state. The package never writes;
// package install writes the file.
package config

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// DefaultPath is the path where install writes the file, and the ConfigPath that it sets in the runtime's
// options of containerd.
const DefaultPath = "/etc/containerd-shim-wasm/config.toml"

// Config is the node's configuration. Default returns the values of an empty file.
type Config struct {
	// CacheDir is the absolute path of the folder for machine code. Only
	// root may write to it, because workers execute the code in it.
	CacheDir string
	// CacheSize is how many bytes the code for all engines may take together. They may take more,
	// because modules in use are never removed.
	CacheSize int64
	// MaxModuleSize is the largest module that is accepted, in bytes.
	MaxModuleSize int64
	// CompileTimeout is how long the compilation of one module may take.
	CompileTimeout time.Duration
	// CompileMemory is how much memory the compilation of one module may take,
	// in bytes.
	CompileMemory int64
	// MaxCompilations is how many modules may be compiled at once on the node.
	MaxCompilations int
	// Precompiled are the digests, as sha256:HEX, of files with machine code that
	// containers may run as if it were a module. Such code is not confined by
	// WebAssembly, only by the container.
	Precompiled []string
	// SystemdCgroup makes systemd create the cgroups of containers, unless the container's own runtime
	// options decide this.
	SystemdCgroup bool
	// ArgoExecutor lets our own program do the work of Argo's executor in the init and wait containers of
	// workflows' pods, where all that they need is known. Otherwise the real executor runs there.
	ArgoExecutor bool
	// LazyArtifacts lets Wasm containers of workflows read input artifacts from their stores, as files,
	// while they run. Otherwise they are downloaded before.
	LazyArtifacts bool
	// Stores are the S3 stores that the operator has configured for pods that name artifacts by annotation.
	Stores []Store
	// SpoolDir is the absolute path of the folder for what such pods write until it has been uploaded, and SpoolSize how
	// many bytes one container may have there.
	SpoolDir  string
	SpoolSize int64
	// LogLevel is a logrus level from "trace" to "error"; empty means the level
	// that containerd asks for with -debug.
	LogLevel string

	// Source is the place where an operator can change these settings, a path or words, for errors. It is not
	// a key of the file.
	Source string
}

// Default returns the values of the keys that the file leaves out.
func Default() Config {
	return Config{
		CacheDir:       "/var/lib/containerd-shim-wasm/cache",
		CacheSize:      2 << 30,
		MaxModuleSize:  256 << 20,
		CompileTimeout: 120 * time.Second,
		CompileMemory:  2 << 30,
		// At least four, so that no three tenants can take all of them.
		MaxCompilations: max(4, runtime.NumCPU()),
		ArgoExecutor:    true,
		LazyArtifacts:   true,
		SpoolDir:        "/var/lib/containerd-shim-wasm/spool",
		SpoolSize:       10 << 30,
	}
}

// Load reads the file at path. A missing file is not an error: the result is Default.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		c := Default()
		c.Source = path
		return c, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the shim's configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	c.Source = path
	return c, nil
}

// mostCompilations is the limit of MaxCompilations; it bounds the search for a free turn.
const mostCompilations = 1024

// document is the file as written. Pointers distinguish absent from zero, and let the
// decoder fill Default in place.
type document struct {
	CacheDir        *string   `toml:"cache_dir"`
	CacheSize       *size     `toml:"cache_size"`
	MaxModuleSize   *size     `toml:"max_module_size"`
	CompileTimeout  *duration `toml:"compile_timeout"`
	CompileMemory   *size     `toml:"compile_memory"`
	MaxCompilations *int      `toml:"max_compilations"`
	Precompiled     *[]string `toml:"precompiled"`
	SystemdCgroup   *bool     `toml:"systemd_cgroup"`
	ArgoExecutor    *bool     `toml:"argo_executor"`
	LazyArtifacts   *bool     `toml:"lazy_artifacts"`
	Stores          *[]Store  `toml:"s3"`
	SpoolDir        *string   `toml:"spool_dir"`
	SpoolSize       *size     `toml:"spool_size"`
	LogLevel        *string   `toml:"log_level"`
}

// Parse decodes text, a TOML document. An unknown key is an error that names it, because a misspelt limit
// would otherwise be no limit.
func Parse(text []byte) (Config, error) {
	c := Default()
	if len(bytes.TrimSpace(text)) == 0 {
		return c, nil
	}
	doc := document{
		CacheDir:        &c.CacheDir,
		CacheSize:       (*size)(&c.CacheSize),
		MaxModuleSize:   (*size)(&c.MaxModuleSize),
		CompileTimeout:  (*duration)(&c.CompileTimeout),
		CompileMemory:   (*size)(&c.CompileMemory),
		MaxCompilations: &c.MaxCompilations,
		Precompiled:     &c.Precompiled,
		SystemdCgroup:   &c.SystemdCgroup,
		ArgoExecutor:    &c.ArgoExecutor,
		LazyArtifacts:   &c.LazyArtifacts,
		Stores:          &c.Stores,
		SpoolDir:        &c.SpoolDir,
		SpoolSize:       (*size)(&c.SpoolSize),
		LogLevel:        &c.LogLevel,
	}
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return Config{}, explain(err)
	}
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// explain turns the decoder's errors into one line that names the line and the key.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("line %d: unknown key %q; known keys are cache_dir, cache_size, max_module_size, "+
			"compile_timeout, compile_memory, max_compilations, precompiled, systemd_cgroup, argo_executor, lazy_artifacts, s3, spool_dir, spool_size, log_level", line, strings.Join(first.Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, _ := bad.Position()
		message := strings.TrimPrefix(bad.Error(), "toml: ")
		if key := strings.Join(bad.Key(), "."); key != "" {
			return fmt.Errorf("line %d: key %q: %s", line, key, message)
		}
		return fmt.Errorf("line %d: %s", line, message)
	}
	return err
}

// UsesSystemd reports whether systemd creates the cgroup of a container with this linux.cgroupsPath. A path
// in the form of the kubelet's systemd driver means systemd, whatever SystemdCgroup is.
func (c Config) UsesSystemd(cgroupsPath string) bool {
	slice, _, ok := strings.Cut(cgroupsPath, ":")
	return ok && strings.HasSuffix(slice, ".slice") || c.SystemdCgroup
}

func (c Config) validate() error {
	switch {
	case !filepath.IsAbs(c.CacheDir):
		return fmt.Errorf("key %q: %q is not an absolute path", "cache_dir", c.CacheDir)
	case !filepath.IsAbs(c.SpoolDir):
		return fmt.Errorf("key %q: %q is not an absolute path", "spool_dir", c.SpoolDir)
	case c.SpoolSize <= 0:
		return fmt.Errorf("key %q: must be more than 0", "spool_size")
	case c.CacheSize <= 0:
		return fmt.Errorf("key %q: must be more than 0", "cache_size")
	case c.MaxModuleSize <= 0:
		return fmt.Errorf("key %q: must be more than 0", "max_module_size")
	case c.CompileTimeout <= 0:
		return fmt.Errorf("key %q: must be more than 0", "compile_timeout")
	case c.CompileMemory <= 0:
		return fmt.Errorf("key %q: must be more than 0", "compile_memory")
	case c.MaxCompilations <= 0 || c.MaxCompilations > mostCompilations:
		return fmt.Errorf("key %q: must be from 1 to %d", "max_compilations", mostCompilations)
	}
	for _, digest := range c.Precompiled {
		sum, ok := strings.CutPrefix(digest, "sha256:")
		if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 || strings.ToLower(sum) != sum {
			return fmt.Errorf("key %q: %q is no digest; write sha256: and the 64 hex digits that sha256sum prints", "precompiled", digest)
		}
	}
	for i := range c.Stores {
		if err := c.Stores[i].validate(); err != nil {
			return fmt.Errorf("key \"s3\", store %d: %w", i+1, err)
		}
	}
	switch c.LogLevel {
	case "", "trace", "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("key %q: %q is none of trace, debug, info, warn, error", "log_level", c.LogLevel)
}
