package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// maxTemplate bounds a template, in bytes. Of a larger one the environment has only the word "offloaded".
const maxTemplate = 128 << 10

// Template is what of a workflow's template the executor needs (upstream's pkg/apis/workflow/v1alpha1).
type Template struct {
	Name         string        `json:"name"`
	Container    *mounts       `json:"container"`
	Script       *script       `json:"script"`
	ContainerSet *containerSet `json:"containerSet"`
	Outputs      Outputs       `json:"outputs"`

	// Further containers of the pod that are the template's.
	Sidecars       []neighbour `json:"sidecars"`
	InitContainers []neighbour `json:"initContainers"`

	// InputArtifacts and OutputArtifacts are read from the lists of the template. Outputs has the latter, too.
	InputArtifacts  []Artifact `json:"-"`
	OutputArtifacts []Artifact `json:"-"`
	// Archive is where artifacts are kept that name no store, nil if there is no such place or nothing that needs it.
	Archive *Location `json:"-"`
}

type mounts struct {
	VolumeMounts []struct {
		MountPath string `json:"mountPath"`
	} `json:"volumeMounts"`
}

type script struct {
	mounts
	Source string `json:"source"`
}

type containerSet struct {
	mounts
	Containers []struct {
		Name string `json:"name"`
	} `json:"containers"`
}

// Outputs keeps every field, as it is reported.
type Outputs map[string]json.RawMessage

// harmless are the fields of a template that mean nothing to the executor: the controller and the kubelet
// honour them.
var harmless = map[string]bool{
	"name": true, "container": true, "script": true, "containerSet": true, "outputs": true, "inputs": true, "metadata": true,
	"nodeSelector": true, "affinity": true, "daemon": true, "volumes": true, "initContainers": true, "sidecars": true,
	"activeDeadlineSeconds": true, "retryStrategy": true, "parallelism": true, "failFast": true, "tolerations": true,
	"schedulerName": true, "priorityClassName": true, "serviceAccountName": true, "automountServiceAccountToken": true,
	"executor": true, "hostAliases": true, "securityContext": true, "podSpecPatch": true, "metrics": true,
	"synchronization": true, "memoize": true, "timeout": true, "annotations": true, "archiveLocation": true,
}

// ParseTemplate reads a template in JSON. The error names what of it is not known.
func ParseTemplate(text []byte) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("the template has more than %d bytes", maxTemplate)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	for name := range fields {
		if !harmless[name] {
			return nil, fmt.Errorf("field %.100q of the template is not known", name)
		}
	}
	var t struct {
		Template
		Inputs struct {
			Artifacts json.RawMessage `json:"artifacts"`
		} `json:"inputs"`
		ArchiveLocation json.RawMessage `json:"archiveLocation"`
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	if t.Container == nil && t.Script == nil && t.ContainerSet == nil {
		return nil, errors.New("the template is of no kind that is known: container, script, containerSet")
	}
	if err := t.parseArtifacts(t.Inputs.Artifacts, t.ArchiveLocation); err != nil {
		return nil, err
	}
	for _, name := range t.MainContainers() {
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return nil, fmt.Errorf("name %.100q of a container is not known", name) // it becomes part of paths
		}
	}
	if _, err := t.Outputs.Parameters(); err != nil {
		return nil, err
	}
	if t.Outputs == nil {
		t.Outputs = Outputs{}
	}
	return &t.Template, nil
}

// parseArtifacts reads the artifacts, and checks that each of their stores is known.
func (t *Template) parseArtifacts(inputs, archive json.RawMessage) error {
	var err error
	if t.InputArtifacts, err = parseArtifacts(inputs); err != nil {
		return fmt.Errorf("read the input artifacts: %w", err)
	}
	if t.OutputArtifacts, err = parseArtifacts(t.Outputs["artifacts"]); err != nil {
		return fmt.Errorf("read the output artifacts: %w", err)
	}
	for i := range t.OutputArtifacts {
		// Upstream does so for input artifacts only when it loads them, after it has compared the paths.
		t.OutputArtifacts[i].Path = path.Clean(t.OutputArtifacts[i].Path)
	}
	var logs struct {
		ArchiveLogs bool `json:"archiveLogs"`
	}
	if len(archive) > 0 {
		if err := json.Unmarshal(archive, &logs); err != nil {
			return fmt.Errorf("read the archive location: %w", err)
		}
	}
	if len(archive) > 0 && (logs.ArchiveLogs || len(t.InputArtifacts) > 0 || len(t.OutputArtifacts) > 0) {
		if err := parseStrictly(archive, &t.Archive); err != nil {
			return fmt.Errorf("read the archive location: %w", err)
		}
	}
	return t.checkStores()
}

func (t *Template) checkStores() error {
	for _, a := range t.InputArtifacts {
		if !a.Supplied() {
			continue
		}
		at, err := a.In(t.Archive)
		if err == nil {
			err = at.check()
		}
		if err != nil {
			return fmt.Errorf("input artifact %s: %w", a.Name, err)
		}
	}
	for _, a := range t.OutputArtifacts {
		at, err := a.out(t.Archive)
		if err == nil {
			err = at.check()
		}
		if err != nil {
			return fmt.Errorf("output artifact %s: %w", a.Name, err)
		}
	}
	if t.ArchivesLogs() {
		if err := t.Archive.check(); err != nil {
			return fmt.Errorf("archived logs: %w", err)
		}
	}
	return nil
}

// ArchivesLogs reports whether the main containers' output becomes artifacts.
func (t *Template) ArchivesLogs() bool {
	return t.Archive != nil && t.Archive.ArchiveLogs != nil && *t.Archive.ArchiveLogs
}

// MainContainers are those for whose end wait waits.
func (t *Template) MainContainers() []string {
	if t.ContainerSet == nil {
		return []string{"main"}
	}
	names := make([]string, 0, len(t.ContainerSet.Containers))
	for _, c := range t.ContainerSet.Containers {
		names = append(names, c.Name)
	}
	return names
}

// OnVolume reports whether a path of the main container is on a volume that the wait container has, too.
// Upstream compares texts (common.FindOverlappingVolume).
func (t *Template) OnVolume(p string) bool {
	var all mounts
	switch {
	case t.Container != nil:
		all = *t.Container
	case t.Script != nil:
		all = t.Script.mounts
	case t.ContainerSet != nil:
		all = t.ContainerSet.mounts
	}
	for _, m := range all.VolumeMounts {
		dir := strings.TrimRight(m.MountPath, "/")
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// Shared reports whether the wait container reads an output of the main container on a volume that both have: one that
// the template mounts, or the one of the input artifacts (upstream's isBaseImagePath, negated).
func (t *Template) Shared(p string) bool {
	if t.OnVolume(p) {
		return true
	}
	for _, a := range t.InputArtifacts {
		if p == a.Path {
			return !a.Optional || a.Supplied()
		}
		if strings.HasPrefix(p, a.Path+"/") {
			return true
		}
	}
	return false
}

// Parameter is an output parameter that is read from a file.
type Parameter struct {
	Path    string
	Default *string
}

// Parameters returns those that are read from a file, by their place in the list.
func (o Outputs) Parameters() (map[int]Parameter, error) {
	var list []struct {
		ValueFrom *struct {
			Path    string  `json:"path"`
			Default *string `json:"default"`
		} `json:"valueFrom"`
	}
	if raw := o["parameters"]; raw != nil {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("read the output parameters: %w", err)
		}
	}
	found := map[int]Parameter{}
	for i, p := range list {
		if p.ValueFrom != nil && p.ValueFrom.Path != "" {
			if !path.IsAbs(p.ValueFrom.Path) {
				return nil, fmt.Errorf("path %.200q of an output parameter is not absolute", p.ValueFrom.Path)
			}
			found[i] = Parameter{p.ValueFrom.Path, p.ValueFrom.Default}
		}
	}
	return found, nil
}

// Set gives the parameter at a place in the list its value.
func (o Outputs) Set(i int, value string) error {
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(o["parameters"], &list); err != nil {
		return fmt.Errorf("read the output parameters: %w", err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode output parameter %d: %w", i, err)
	}
	list[i]["value"] = text
	o["parameters"], err = json.Marshal(list)
	return err
}
