package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// recorder keeps the last state of each pod and each WorkflowTaskResult of a namespace, also of those that are gone.
type recorder struct {
	argo *argo
	mu   sync.Mutex
	last map[string]map[string]*anyObject // by kind, by name
	gone map[string]bool                  // pods
}

var (
	podKind        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	taskResultKind = schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "WorkflowTaskResult"}
)

func record(t *testing.T, a *argo) *recorder {
	t.Helper()
	r := &recorder{argo: a, last: map[string]map[string]*anyObject{}, gone: map[string]bool{}}
	for _, kind := range []schema.GroupVersionKind{podKind, taskResultKind} {
		r.last[kind.Kind] = map[string]*anyObject{}
		where, err := kube.resource(kind, a.name)
		if err != nil {
			t.Fatal(err)
		}
		keep := func(object any, gone bool) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			u := object.(*anyObject)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.last[kind.Kind][u.GetName()] = u
			if kind == podKind {
				r.gone[u.GetName()] = gone
			}
		}
		_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: &cache.ListWatch{
				ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
					return where.List(ctx, options)
				},
				WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
					return where.Watch(ctx, options)
				},
			},
			ObjectType: &anyObject{},
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(object any) { keep(object, false) },
				UpdateFunc: func(_, object any) { keep(object, false) },
				DeleteFunc: func(object any) { keep(object, true) },
			},
		})
		go informer.RunWithContext(t.Context())
		if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
			t.Fatal("the objects cannot be watched")
		}
	}
	return r
}

// of returns the objects of a kind that belong to a workflow.
func (r *recorder) of(kind schema.GroupVersionKind, workflow string) []*anyObject {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*anyObject
	for _, u := range r.last[kind.Kind] {
		if u.GetLabels()[workflowLabel] == workflow {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b *anyObject) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return found
}

func (r *recorder) pods(t testing.TB, workflow string) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	for _, u := range r.of(podKind, workflow) {
		pods = append(pods, typed[corev1.Pod, *corev1.Pod](t, u))
	}
	return pods
}

// settled waits until all pods of a workflow have ended or are gone, and returns the workflow as it is then.
func (r *recorder) settled(t testing.TB, w workflow) workflow {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	running := ""
	if err := poll.Until(ctx, func() (bool, error) {
		running = r.running(t, w.GetName())
		return running == "", nil
	}); err != nil {
		t.Errorf("pod %s of workflow %s has not ended: %v", running, w.GetName(), err)
	}
	return w.until(t, "is read", func(workflow) bool { return true })
}

// running returns the name of a pod of a workflow that is there and has not ended.
func (r *recorder) running(t testing.TB, workflow string) string {
	t.Helper()
	for _, pod := range r.pods(t, workflow) {
		r.mu.Lock()
		gone := r.gone[pod.Name]
		r.mu.Unlock()
		if !gone && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return pod.Name
		}
	}
	return ""
}

// trace is what a run has left, each value by a name that is the same for each run.
type trace map[string]string

func (t trace) show(key string) string {
	if value, found := t[key]; found {
		return value
	}
	return "(nothing)"
}

// differing returns the names of the values that are not the same in all traces.
func differing(traces []trace) []string {
	keys := map[string]bool{}
	for _, left := range traces {
		for key := range left {
			if slices.ContainsFunc(traces, func(other trace) bool { return other.show(key) != left[key] }) {
				keys[key] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// incomparable are fields of nodes that are times, or names that each run chooses for itself.
var incomparable = []string{"id", "startedAt", "finishedAt", "estimatedDuration", "resourcesDuration", "podIP", "hostNodeName",
	"synchronizationStatus"}

// trace returns what a workflow that has settled has left: its nodes, task results, pods and S3 objects.
func (r *recorder) trace(t testing.TB, w workflow, e upstreamExample, by way) trace {
	t.Helper()
	n := r.names(t, w, e, by)
	left := trace{}
	nodes, _, _ := w.nested("status", "nodes")
	for id, value := range nodes {
		fields, _ := value.(map[string]any)
		fields = maps.Clone(fields)
		for _, field := range incomparable {
			delete(fields, field)
		}
		left.add(n, "node "+n.text(id), fields)
	}
	for _, field := range []string{"phase", "message", "progress", "outputs", "taskResultsCompletionStatus"} {
		status, _, _ := w.nested("status")
		left.add(n, "(workflow) "+field, status[field])
	}
	for _, u := range r.of(taskResultKind, w.GetName()) {
		fields := maps.Clone(u.Object)
		delete(fields, "metadata")
		fields["labels"] = u.Object["metadata"].(map[string]any)["labels"]
		fields["owner"] = fmt.Sprint(len(u.GetOwnerReferences()))
		for _, owner := range u.GetOwnerReferences() {
			fields["owner"] = owner.Kind + " " + owner.Name
		}
		left.add(n, "result "+n.text(u.GetName()), fields)
	}
	for _, pod := range r.pods(t, w.GetName()) {
		name := "pod " + n.text(pod.Name)
		left[name] = n.text(fmt.Sprintf("%s %q %q", pod.Status.Phase, pod.Status.Reason, pod.Status.Message))
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			value := "has not ended"
			if end := c.State.Terminated; end != nil {
				value = fmt.Sprintf("exit code %d, %s, signal %d, %q", end.ExitCode, end.Reason, end.Signal, end.Message)
			}
			left[name+" container "+c.Name] = n.text(value)
		}
	}
	left.addBucket(t, n, w.GetName())
	return left
}

func (w workflow) nested(fields ...string) (map[string]any, bool, error) {
	value := w.Object
	for _, field := range fields {
		below, isMap := value[field].(map[string]any)
		if !isMap {
			return nil, false, nil
		}
		value = below
	}
	return value, true, nil
}

// add adds every leaf of a value. Lists of names are sorted, because the controller writes them in the order of events.
func (t trace) add(n *names, name string, value any) {
	switch value := value.(type) {
	case nil:
	case map[string]any:
		for field, below := range value {
			t.add(n, name+" "+n.text(field), below)
		}
	case []any:
		all := make([]string, len(value))
		for i, item := range value {
			text, isText := item.(string)
			if !isText {
				for i, item := range value {
					t.add(n, fmt.Sprintf("%s %d", name, i), item)
				}
				return
			}
			all[i] = n.text(text)
		}
		slices.Sort(all)
		t[name] = fmt.Sprintf("%q", all)
	default:
		t[name] = n.text(fmt.Sprint(value))
	}
}

// names gives things of a run the names that they have in each run.
type names struct {
	known *strings.Replacer
}

var addresses = regexp.MustCompile(`10\.244\.\d+\.\d+`)

func (n *names) text(text string) string {
	return addresses.ReplaceAllString(times.ReplaceAllString(n.known.Replace(text), "TIME"), "ADDRESS")
}

func (r *recorder) names(t testing.TB, w workflow, e upstreamExample, by way) *names {
	t.Helper()
	known := map[string]string{
		w.GetName():        "WORKFLOW",
		string(w.GetUID()): "UID",
		asWasm.image:       "IMAGE",
		asNative.image:     "IMAGE",
	}
	for _, f := range []flavour{asWasm, asNative} {
		known[fmt.Sprintf("%q", f.program)] = `"PROBE"`
	}
	for _, name := range e.own {
		known[name+e.ownSuffix(by)] = name
	}
	nodes, _, _ := w.nested("status", "nodes")
	for id, value := range nodes {
		fields, _ := value.(map[string]any)
		name, _ := fields["name"].(string)
		if id != w.GetName() {
			known[id] = "NODE{" + below(w, name) + "}"
		}
	}
	for _, pod := range r.pods(t, w.GetName()) {
		node := pod.Annotations["workflows.argoproj.io/node-name"]
		if pod.Name != w.GetName() {
			known[pod.Name] = "POD{" + below(w, node) + "}"
		}
	}
	// A Replacer prefers what comes first, and a name may be the beginning of another.
	var pairs []string
	for _, name := range slices.SortedFunc(maps.Keys(known), func(a, b string) int { return cmp.Or(len(b)-len(a), cmp.Compare(a, b)) }) {
		pairs = append(pairs, name, known[name])
	}
	return &names{strings.NewReplacer(pairs...)}
}

// addBucket adds the objects below a workflow's name in the bucket.
func (t trace) addBucket(tb testing.TB, n *names, workflow string) {
	tb.Helper()
	root := cluster.S3().Dir
	err := filepath.WalkDir(filepath.Join(root, workflow), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		key, err := filepath.Rel(root, path)
		t["object "+n.text(key)] = n.text(contents(content))
		return err
	})
	if err != nil {
		tb.Error(err)
	}
}

// contents describes the content of an object; of an archive all but its times.
func contents(content []byte) string {
	plain, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return brief(content)
	}
	header := plain.Header
	header.ModTime = time.Time{}
	unpacked, err := io.ReadAll(plain)
	if err != nil {
		return fmt.Sprintf("broken gzip: %v", err)
	}
	text := fmt.Sprintf("gzip %+v", header)
	entries := tar.NewReader(bytes.NewReader(unpacked))
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return text
		}
		if err != nil {
			return text + " " + brief(unpacked)
		}
		content, err := io.ReadAll(entries)
		if err != nil {
			return fmt.Sprintf("%s broken tar: %v", text, err)
		}
		maps.DeleteFunc(entry.PAXRecords, func(name, _ string) bool { return strings.HasSuffix(name, "time") })
		text += fmt.Sprintf("; %c %s -> %q mode %o owner %d %q group %d %q %v %v: %s", entry.Typeflag, entry.Name, entry.Linkname,
			entry.Mode, entry.Uid, entry.Uname, entry.Gid, entry.Gname, entry.Format, entry.PAXRecords, brief(content))
	}
}

// brief is a text, or the length and the sum of what is no text or long.
func brief(content []byte) string {
	if len(content) < 2000 && utf8.Valid(content) {
		return fmt.Sprintf("%q", content)
	}
	return fmt.Sprintf("%d bytes %x", len(content), sha256.Sum256(content))
}
