package shim

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// settings reads the settings that the container's runtime options name. The options are a file or a text of
// our own format (runtimeoptions.v1.Options, which containerd's CRI plugin and ctr send to every runtime but
// runc's), or runc's options, of which only the choice of the cgroup driver concerns a Wasm container. A
// container without options gets the file at config.DefaultPath.
func (d *daemon) settings(any *anypb.Any) (config.Config, error) {
	s, err := parseOptions(any)
	if err != nil {
		return config.Config{}, err
	}
	if s.LogLevel != "" {
		level, err := logrus.ParseLevel(s.LogLevel)
		if err != nil {
			return config.Config{}, fmt.Errorf("%s: %w", s.Source, err)
		}
		d.log.Logger.SetLevel(level)
	}
	return s, nil
}

func parseOptions(any *anypb.Any) (config.Config, error) {
	if len(any.GetValue()) == 0 {
		return config.Load(config.DefaultPath)
	}
	var ours runtimeoptions.Options
	var runc options.Options
	switch any.MessageName() {
	case ours.ProtoReflect().Descriptor().FullName():
		if err := any.UnmarshalTo(&ours); err != nil {
			return config.Config{}, fmt.Errorf("decode runtime options: %w", err)
		}
		return ownSettings(&ours)
	case runc.ProtoReflect().Descriptor().FullName():
		if err := any.UnmarshalTo(&runc); err != nil {
			return config.Config{}, fmt.Errorf("decode runtime options: %w", err)
		}
		s, err := config.Load(config.DefaultPath)
		s.SystemdCgroup = runc.SystemdCgroup
		return s, err
	}
	return config.Config{}, fmt.Errorf("runtime options of type %s are unknown: set ConfigPath, or nothing, in the options of the runtime in containerd's configuration", any.TypeUrl)
}

func ownSettings(o *runtimeoptions.Options) (config.Config, error) {
	switch {
	case o.ConfigPath == "" && len(o.ConfigBody) == 0:
		return config.Load(config.DefaultPath)
	case o.ConfigPath == "":
		const source = "the options of the runtime in containerd's configuration"
		c, err := config.Parse(o.ConfigBody)
		if err != nil {
			return config.Config{}, fmt.Errorf("%s: %w", source, err)
		}
		c.Source = source
		return c, nil
	case !filepath.IsAbs(o.ConfigPath):
		return config.Config{}, fmt.Errorf("runtime option ConfigPath %q is not an absolute path", o.ConfigPath)
	case o.ConfigPath != config.DefaultPath:
		// Only the default file may be missing: a missing file of explicitly named limits must not mean no
		// limits.
		if _, err := os.Stat(o.ConfigPath); err != nil {
			return config.Config{}, fmt.Errorf("runtime option ConfigPath: %w", err)
		}
	}
	return config.Load(o.ConfigPath)
}

// nativeOptions translates the runtime options of a container for the stock shim. The stock shim knows only
// runc's and refuses every other type, but ours contain the choice of the cgroup driver, too.
func (d *daemon) nativeOptions(any *anypb.Any, bundle string) (*anypb.Any, error) {
	var ours runtimeoptions.Options
	if any.MessageName() != ours.ProtoReflect().Descriptor().FullName() {
		return any, nil
	}
	s, err := d.settings(any)
	if err != nil {
		return nil, err
	}
	spec, _, err := loadSpec(bundle)
	if err != nil {
		return nil, err
	}
	return wrap(&options.Options{SystemdCgroup: s.UsesSystemd(cgroupsPath(spec))})
}
