package argo

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// maxTemplate bounds a template, in bytes. Argo keeps those of more than 128 KiB
// in ConfigMaps, which hold 1 MiB at most.
const maxTemplate = 16 << 20

// template has the fields of a workflow's template that the emissary needs, see
// upstream's pkg/apis/workflow/v1alpha1. Other fields are ignored.
type template struct {
	Container    *mounted      `json:"container"`
	Script       *mounted      `json:"script"`
	ContainerSet *containerSet `json:"containerSet"`
	Sidecars     []named       `json:"sidecars"`
	Inputs       struct {
		Artifacts []artifact `json:"artifacts"`
	} `json:"inputs"`
	Outputs struct {
		Parameters []struct {
			ValueFrom *struct {
				Path string `json:"path"`
			} `json:"valueFrom"`
		} `json:"parameters"`
		Artifacts []artifact `json:"artifacts"`
	} `json:"outputs"`
	ArchiveLocation *struct {
		ArchiveLogs *bool `json:"archiveLogs"`
	} `json:"archiveLocation"`
}

type named struct {
	Name string `json:"name"`
}

type artifact struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

type mounted struct {
	VolumeMounts []volumeMount `json:"volumeMounts"`
}

type volumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
}

type containerSet struct {
	mounted
	Containers []struct {
		Name         string   `json:"name"`
		Dependencies []string `json:"dependencies"`
	} `json:"containers"`
	RetryStrategy *struct {
		Duration string `json:"duration"`
		Retries  *count `json:"retries"`
	} `json:"retryStrategy"`
}

// count is Kubernetes' IntOrString for a number.
type count int

func (c *count) UnmarshalJSON(data []byte) error {
	text := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%q is no whole number", text)
	}
	*c = count(n)
	return nil
}

func parseTemplate(data []byte) (*template, error) {
	var t *template
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	if t == nil {
		return nil, errors.New("read the template: it is null")
	}
	return t, nil
}

// volumeMounts are those of the template itself, not of each container in a set.
func (t *template) volumeMounts() []volumeMount {
	switch {
	case t.Container != nil:
		return t.Container.VolumeMounts
	case t.Script != nil:
		return t.Script.VolumeMounts
	case t.ContainerSet != nil:
		return t.ContainerSet.VolumeMounts
	}
	return nil
}

// onVolume reports whether a path lies in a volume that Argo's wait container mounts
// too, and so reads outputs from without our help. Upstream compares text before 4.1
// and clean paths since. An output on which the two differ is better saved than not.
func (t *template) onVolume(p string) bool {
	for _, mount := range t.volumeMounts() {
		dir := strings.TrimRight(mount.MountPath, "/")
		if (p == dir || strings.HasPrefix(p, dir+"/")) && t.inVolume(p) {
			return true
		}
	}
	return false
}

// inVolume reports whether a path lies in a volume.
func (t *template) inVolume(p string) bool {
	for _, mount := range t.volumeMounts() {
		if within(mount.MountPath, p) {
			return true
		}
	}
	return false
}

// aboveVolume reports whether a volume is mounted at a path or somewhere below.
func (t *template) aboveVolume(p string) bool {
	for _, mount := range t.volumeMounts() {
		if within(p, mount.MountPath) {
			return true
		}
	}
	return false
}

// within reports whether a path is dir or lies below it.
func within(dir, p string) bool {
	dir, p = path.Clean(dir), path.Clean(p)
	return p == dir || strings.HasPrefix(p, strings.TrimRight(dir, "/")+"/")
}

// dependencies are the containers that must have succeeded before the named one.
func (t *template) dependencies(container string) []string {
	if t.ContainerSet == nil {
		return nil
	}
	for _, c := range t.ContainerSet.Containers {
		if c.Name == container {
			return c.Dependencies
		}
	}
	return nil
}

// mainContainers are those whose end ends the sidecars.
func (t *template) mainContainers() []string {
	if t.ContainerSet == nil {
		return []string{mainContainer}
	}
	names := make([]string, 0, len(t.ContainerSet.Containers))
	for _, c := range t.ContainerSet.Containers {
		names = append(names, c.Name)
	}
	return names
}

func (t *template) isSidecar(container string) bool {
	for _, sidecar := range t.Sidecars {
		if sidecar.Name == container {
			return true
		}
	}
	return false
}

func (t *template) archivesLogs() bool {
	return t.ArchiveLocation != nil && t.ArchiveLocation.ArchiveLogs != nil && *t.ArchiveLocation.ArchiveLogs
}

// attempts returns how often to run the guest until it succeeds, and the pause
// between two runs. A set's "retries" counts all runs in every Argo so far, though its
// documentation says that the first is not counted. Upstream runs nothing at all,
// and reports success, for 0; here the guest runs once.
func (t *template) attempts() (times int, pause time.Duration, err error) {
	if t.ContainerSet == nil || t.ContainerSet.RetryStrategy == nil || t.ContainerSet.RetryStrategy.Retries == nil {
		return 1, 0, nil
	}
	strategy := t.ContainerSet.RetryStrategy
	if strategy.Duration != "" {
		pause, err = time.ParseDuration(strategy.Duration)
		if err != nil {
			return 0, 0, fmt.Errorf("retryStrategy.duration: %w", err)
		}
		if pause < 0 {
			return 0, 0, fmt.Errorf("retryStrategy.duration: %q is negative", strategy.Duration)
		}
	}
	return max(1, int(*strategy.Retries)), pause, nil
}
