package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// settings are the node's configuration as it holds for one container.
type settings struct {
	config.Config
	// source is where an operator would change them.
	source string
}

// settings reads what the container's runtime options lead to: a file or a text
// of our own format (runtimeoptions.v1.Options, which containerd's CRI plugin and
// ctr send to every runtime but runc's), or runc's options, of which the choice of
// the cgroup driver concerns a Wasm container. A container without options gets
// the file at config.DefaultPath.
func (n *node) settings(any *anypb.Any) (settings, error) {
	s, err := parseOptions(any)
	if err != nil {
		return settings{}, err
	}
	if s.LogLevel != "" {
		level, err := logrus.ParseLevel(s.LogLevel)
		if err != nil {
			return settings{}, fmt.Errorf("%s: %w", s.source, err)
		}
		n.log.Logger.SetLevel(level)
	}
	return s, nil
}

func parseOptions(any *anypb.Any) (settings, error) {
	if len(any.GetValue()) == 0 {
		return loadSettings(config.DefaultPath)
	}
	var ours runtimeoptions.Options
	var runc options.Options
	switch any.MessageName() {
	case ours.ProtoReflect().Descriptor().FullName():
		if err := any.UnmarshalTo(&ours); err != nil {
			return settings{}, fmt.Errorf("decode runtime options: %w", err)
		}
		return ownSettings(&ours)
	case runc.ProtoReflect().Descriptor().FullName():
		if err := any.UnmarshalTo(&runc); err != nil {
			return settings{}, fmt.Errorf("decode runtime options: %w", err)
		}
		s, err := loadSettings(config.DefaultPath)
		s.SystemdCgroup = runc.SystemdCgroup
		return s, err
	}
	return settings{}, fmt.Errorf("runtime options of type %s are unknown: set ConfigPath, or nothing, in the options of the runtime in containerd's configuration", any.TypeUrl)
}

func ownSettings(o *runtimeoptions.Options) (settings, error) {
	switch {
	case o.ConfigPath == "" && len(o.ConfigBody) == 0:
		return loadSettings(config.DefaultPath)
	case o.ConfigPath == "":
		const source = "the options of the runtime in containerd's configuration"
		c, err := config.Parse(o.ConfigBody)
		if err != nil {
			return settings{}, fmt.Errorf("%s: %w", source, err)
		}
		return settings{Config: c, source: source}, nil
	case !filepath.IsAbs(o.ConfigPath):
		return settings{}, fmt.Errorf("runtime option ConfigPath %q is not an absolute path", o.ConfigPath)
	case o.ConfigPath != config.DefaultPath:
		// Only the usual file may be missing: limits that somebody has named
		// and that are not there must not turn into no limits.
		if _, err := os.Stat(o.ConfigPath); err != nil {
			return settings{}, fmt.Errorf("runtime option ConfigPath: %w", err)
		}
	}
	return loadSettings(o.ConfigPath)
}

func loadSettings(path string) (settings, error) {
	c, err := config.Load(path)
	if err != nil {
		return settings{}, err
	}
	return settings{Config: c, source: path}, nil
}

// systemdCgroup tells whether systemd makes a container's cgroup. The kubelet's
// systemd driver shows in the path, whatever the settings say.
func (s settings) systemdCgroup(spec *specs.Spec) bool {
	if spec.Linux != nil {
		if slice, _, ok := strings.Cut(spec.Linux.CgroupsPath, ":"); ok && strings.HasSuffix(slice, ".slice") {
			return true
		}
	}
	return s.SystemdCgroup
}

// nativeOptions translates the runtime options of a container for the stock
// shim. It knows runc's alone and refuses every other type, but the choice of the
// cgroup driver is in ours too.
func (n *node) nativeOptions(any *anypb.Any, bundle string) (*anypb.Any, error) {
	var ours runtimeoptions.Options
	if any.MessageName() != ours.ProtoReflect().Descriptor().FullName() {
		return any, nil
	}
	s, err := n.settings(any)
	if err != nil {
		return nil, err
	}
	spec, _, err := loadSpec(bundle)
	if err != nil {
		return nil, err
	}
	return wrap(&options.Options{SystemdCgroup: s.systemdCgroup(spec)})
}
