package executor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxTemplate bounds a template, in bytes. Argo keeps those of more than 128 KiB in ConfigMaps, which
// hold 1 MiB at most.
const maxTemplate = 1 << 20

// raw is JSON that is not looked into.
type raw = json.RawMessage

// fields are the fields of a template in Argo 3.6, 3.7 and 4.0. A template with another one is of
// another version, and might ask for something that is not known here.
type fields struct {
	Name, NodeSelector, Affinity, Metadata, Daemon, Volumes, InitContainers, Sidecars  raw
	ActiveDeadlineSeconds, RetryStrategy, Parallelism, FailFast, Tolerations, Priority raw
	SchedulerName, PriorityClassName, ServiceAccountName, AutomountServiceAccountToken raw
	Executor, HostAliases, SecurityContext, PodSpecPatch, Metrics, Synchronization     raw
	Memoize, Timeout, Annotations, Container, Script, ContainerSet, Inputs, DAG        raw
	Steps, Resource, Suspend, Data, HTTP, Plugin                                       raw
	Outputs                                                                            struct {
		Result, ExitCode, Artifacts raw
		Parameters                  []struct {
			Name, Default, Value, GlobalName, Enum, Description raw
			ValueFrom                                           *struct {
				Path, JSONPath, JQFilter, Event, Parameter, Supplied, ConfigMapKeyRef, Default, Expression raw
			}
		}
	}
	ArchiveLocation *struct {
		ArchiveLogs, S3, Git, HTTP, Artifactory, HDFS, Raw, OSS, GCS, Azure, Plugin raw
	}
}

// template has what the executor needs of a template. The rest is for the controller and the
// containers.
type template struct {
	Container    *mounted      `json:"container"`
	Script       *script       `json:"script"`
	ContainerSet *containerSet `json:"containerSet"`
	Steps        raw           `json:"steps"`
	DAG          raw           `json:"dag"`
	Resource     raw           `json:"resource"`
	Suspend      raw           `json:"suspend"`
	Data         raw           `json:"data"`
	HTTP         raw           `json:"http"`
	Plugin       raw           `json:"plugin"`
	Inputs       struct {
		Artifacts []raw `json:"artifacts"`
	} `json:"inputs"`
	Outputs         outputs `json:"outputs"`
	ArchiveLocation *struct {
		ArchiveLogs *bool `json:"archiveLogs"`
	} `json:"archiveLocation"`
}

type mounted struct {
	VolumeMounts []volumeMount `json:"volumeMounts"`
}

type volumeMount struct {
	MountPath string `json:"mountPath"`
}

type script struct {
	mounted
	Source string `json:"source"`
}

type containerSet struct {
	mounted
	Containers []struct {
		Name string `json:"name"`
	} `json:"containers"`
}

// outputs are upstream's wfv1.Outputs, which are reported as a whole.
type outputs struct {
	Parameters []parameter `json:"parameters,omitempty"`
	Artifacts  []raw       `json:"artifacts,omitempty"`
	Result     *string     `json:"result,omitempty"`
	ExitCode   *string     `json:"exitCode,omitempty"`
}

type parameter struct {
	Name        string      `json:"name"`
	Default     *anyString  `json:"default,omitempty"`
	Value       *anyString  `json:"value,omitempty"`
	ValueFrom   *valueFrom  `json:"valueFrom,omitempty"`
	GlobalName  string      `json:"globalName,omitempty"`
	Enum        []anyString `json:"enum,omitempty"`
	Description *anyString  `json:"description,omitempty"`
}

type valueFrom struct {
	Path            string     `json:"path,omitempty"`
	JSONPath        string     `json:"jsonPath,omitempty"`
	JQFilter        string     `json:"jqFilter,omitempty"`
	Event           string     `json:"event,omitempty"`
	Parameter       string     `json:"parameter,omitempty"`
	Supplied        *struct{}  `json:"supplied,omitempty"`
	ConfigMapKeyRef raw        `json:"configMapKeyRef,omitempty"`
	Default         *anyString `json:"default,omitempty"`
	Expression      string     `json:"expression,omitempty"`
}

// anyString is text that may be written as a number or a boolean.
type anyString string

func (a *anyString) UnmarshalJSON(data []byte) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	switch value := value.(type) {
	case float64:
		*a = anyString(strconv.FormatFloat(value, 'f', -1, 64))
	case bool:
		*a = anyString(strconv.FormatBool(value))
	case string:
		*a = anyString(value)
	}
	return nil
}

// Supported reports by its error why a template needs the real argoexec.
func Supported(data []byte) error {
	_, err := parseTemplate(data)
	return err
}

func parseTemplate(data []byte) (*template, error) {
	if len(data) > maxTemplate {
		return nil, fmt.Errorf("its template has %d bytes", len(data))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var known *fields
	if err := decoder.Decode(&known); err != nil {
		return nil, fmt.Errorf("its template is not understood: %s", quote(err.Error()))
	}
	var t *template
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("its template is not understood: %s", quote(err.Error()))
	}
	if t == nil {
		return nil, errors.New("its template is empty")
	}
	return t, t.supported()
}

// set reports whether an optional field is there.
func set(value raw) bool { return len(value) > 0 && string(value) != "null" }

func (t *template) supported() error {
	for _, kind := range []struct {
		name  string
		value raw
	}{
		{"steps", t.Steps}, {"dag", t.DAG}, {"resource", t.Resource}, {"suspend", t.Suspend},
		{"data", t.Data}, {"http", t.HTTP}, {"plugin", t.Plugin},
	} {
		if set(kind.value) {
			return fmt.Errorf("its template is of kind %s", kind.name)
		}
	}
	kinds := 0
	for _, there := range []bool{t.Container != nil, t.Script != nil, t.ContainerSet != nil} {
		if there {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return fmt.Errorf("its template has %d of container, script and containerSet, and not one", kinds)
	case len(t.Inputs.Artifacts) > 0:
		return errors.New("its template has input artifacts")
	case len(t.Outputs.Artifacts) > 0:
		return errors.New("its template has output artifacts")
	case t.ArchiveLocation != nil && t.ArchiveLocation.ArchiveLogs != nil && *t.ArchiveLocation.ArchiveLogs:
		return errors.New("its template archives logs")
	}
	return t.supportedNames()
}

// supportedNames refuses names that are paths.
func (t *template) supportedNames() error {
	names := t.mains()
	if len(names) == 0 {
		return errors.New("its template has no containers")
	}
	for _, name := range names {
		if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
			return fmt.Errorf("its template has a container called %s", quote(name))
		}
	}
	return nil
}

const mainContainer = "main"

// mains are the names of the containers to wait for.
func (t *template) mains() []string {
	if t.ContainerSet == nil {
		return []string{mainContainer}
	}
	var names []string
	for _, c := range t.ContainerSet.Containers {
		names = append(names, c.Name)
	}
	return names
}

// hasResult reports whether there is a container whose output is the result.
func (t *template) hasResult() bool { return slices.Contains(t.mains(), mainContainer) }

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

// onVolume reports whether a path lies on a volume, which this container mounts, too. Upstream
// compares text.
func (t *template) onVolume(path string) bool {
	for _, mount := range t.volumeMounts() {
		at := strings.TrimRight(mount.MountPath, "/")
		if path == at || strings.HasPrefix(path, at+"/") {
			return true
		}
	}
	return false
}
