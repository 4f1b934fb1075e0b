package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"
)

// within bounds every wait that sets no other limit: what takes longer, even on a busy machine, hangs. If
// nothing happens to a pod, the kubelet looks at it again after a minute and a half at the latest.
const within = 4 * time.Minute

// anyObject is an object of any kind.
type anyObject = unstructured.Unstructured

// api is the tests' client of the API server.
type api struct {
	typed   *kubernetes.Clientset
	objects *dynamic.DynamicClient
	mapper  meta.ResettableRESTMapper
}

func connect(config *rest.Config) (*api, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // a test waits for the cluster, not for the client's own rate limit
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(typed.Discovery()))
	return &api{typed: typed, objects: objects, mapper: mapper}, nil
}

// resource returns the client for objects of a kind; namespace is empty for objects of the cluster.
func (a *api) resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return a.objects.Resource(mapping.Resource), nil
	}
	return a.objects.Resource(mapping.Resource).Namespace(namespace), nil
}

// kindOf returns the kind of an object or of a pointer to a zero one: typed objects do not carry it.
func kindOf(object runtime.Object) (schema.GroupVersionKind, error) {
	if u, ok := object.(*anyObject); ok {
		return u.GroupVersionKind(), nil
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return kinds[0], nil
}

// untyped converts an object for the dynamic client.
func untyped(object runtime.Object) (*anyObject, error) {
	if u, ok := object.(*anyObject); ok {
		return u, nil
	}
	kind, err := kindOf(object)
	if err != nil {
		return nil, err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	u := &anyObject{Object: content}
	u.SetGroupVersionKind(kind)
	return u, nil
}

// fromYAML returns the object that a text describes.
func fromYAML(t testing.TB, text string) *anyObject {
	t.Helper()
	object := &anyObject{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return object
}

// space is a namespace of the cluster for the objects of one test.
type space struct {
	name string
}

// newSpace makes a namespace for a top-level test. It is deleted at the test's end. The end of the run checks
// that the namespace is gone and has left nothing.
func newSpace(t *testing.T) *space {
	t.Helper()
	made := create(t, "", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: spaceName(t.Name()),
		Labels:       map[string]string{spaceLabel: "true"},
	}})
	s := &space{name: made.Name}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := kube.typed.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting namespace %s: %v", s.name, err)
		}
	})
	// The API server refuses pods before the namespace has a service account.
	await(t, s.name, "default", "exists", func(*corev1.ServiceAccount) bool { return true })
	return s
}

// spaceName turns the name of a test into the beginning of a namespace's name.
func spaceName(test string) string {
	name := strings.ToLower(strings.TrimPrefix(test, "Test"))
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return "t-" + name[:min(len(name), 40)] + "-"
}

// create makes an object in a namespace and returns it as the API server keeps it.
func create[T any, P interface {
	*T
	runtime.Object
}](t testing.TB, namespace string, object P) P {
	t.Helper()
	u, err := untyped(object)
	if err != nil {
		t.Fatal(err)
	}
	where, err := kube.resource(u.GroupVersionKind(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	made, err := where.Create(t.Context(), u, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("creating %s %s%s: %v", u.GetKind(), u.GetName(), u.GetGenerateName(), err)
	}
	return typed[T, P](t, made)
}

func typed[T any, P interface {
	*T
	runtime.Object
}](t testing.TB, u *anyObject) P {
	t.Helper()
	var object P = new(T)
	if same, ok := any(object).(*anyObject); ok {
		same.Object = u.Object
		return object
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, object); err != nil {
		t.Fatal(err)
	}
	return object
}

// await watches the named object of a typed kind until the condition holds, and returns the object. What
// describes the condition in a few words. The object need not exist yet.
func await[T any, P interface {
	*T
	runtime.Object
}](t testing.TB, namespace, name, what string, condition func(P) bool) P {
	t.Helper()
	kind, err := kindOf(P(new(T)))
	if err != nil {
		t.Fatal(err)
	}
	u := awaitObject(t, kind, namespace, name, what, within, func(u *anyObject) bool {
		return condition(typed[T, P](t, u))
	})
	return typed[T, P](t, u)
}

// awaitObject is [await] for any kind, Argo's kinds included, and with any time limit.
func awaitObject(t testing.TB, kind schema.GroupVersionKind, namespace, name, what string, within time.Duration, condition func(*anyObject) bool) *anyObject {
	t.Helper()
	where, err := kube.resource(kind, namespace)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var last *anyObject
	_, err = watchtools.UntilWithSync(ctx, one(where, name), &anyObject{}, nil, func(event watch.Event) (bool, error) {
		last, _ = event.Object.(*anyObject)
		if event.Type == watch.Deleted {
			return false, errors.New("it was deleted")
		}
		return last != nil && condition(last), nil
	})
	if err != nil {
		t.Fatalf("waiting until %s %s %s: %v; it is now\n%s", kind.Kind, name, what, err, status(last))
	}
	return last
}

// gone waits until the named object no longer exists.
func gone(ctx context.Context, kind schema.GroupVersionKind, namespace, name string) error {
	where, err := kube.resource(kind, namespace)
	if err != nil {
		return err
	}
	var last *anyObject
	absent := func(store cache.Store) (bool, error) { return len(store.List()) == 0, nil }
	_, err = watchtools.UntilWithSync(ctx, one(where, name), &anyObject{}, absent, func(event watch.Event) (bool, error) {
		last, _ = event.Object.(*anyObject)
		return event.Type == watch.Deleted, nil
	})
	if err != nil {
		return fmt.Errorf("waiting until %s %s is gone: %w; it is now\n%s", kind.Kind, name, err, status(last))
	}
	return nil
}

// one lists and watches a single object.
func one(where dynamic.ResourceInterface, name string) cache.ListerWatcher {
	only := fields.OneTermEqualSelector("metadata.name", name).String()
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = only
			return where.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = only
			return where.Watch(ctx, options)
		},
	}
}

// status returns the status of an object as YAML.
func status(u *anyObject) string {
	if u == nil {
		return "(never seen)"
	}
	content, found := u.Object["status"]
	if !found {
		content = u.Object
	}
	text, err := yaml.Marshal(content)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *space) patch(t testing.TB, pod, patch string) (*corev1.Pod, error) {
	ctx := context.WithoutCancel(t.Context()) // also in clean-ups
	return kube.typed.CoreV1().Pods(s.name).Patch(ctx, pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
}

// logs returns what a container of a pod has written so far.
func (s *space) logs(t testing.TB, pod, container string) string {
	t.Helper()
	text, err := s.readLogs(t.Context(), pod, corev1.PodLogOptions{Container: container})
	if err != nil {
		t.Fatalf("reading the log of %s/%s: %v", pod, container, err)
	}
	return text
}

func (s *space) readLogs(ctx context.Context, pod string, options corev1.PodLogOptions) (string, error) {
	stream, err := kube.typed.CoreV1().Pods(s.name).GetLogs(pod, &options).Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	return string(text), err
}

// result is the outcome of a command.
type result struct {
	stdout, stderr string
	code           int
}

// kubectl runs kubectl in the test's namespace, as a person does.
func (s *space) kubectl(t testing.TB, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	command := cluster.KubectlCommand(ctx, append([]string{"--namespace", s.name}, args...)...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = stdin, &stdout, &stderr
	err := cluster.StartInNetwork(command)
	if err == nil {
		err = command.Wait()
	}
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatalf("kubectl %q: %v\n%s", args, err, stderr.String())
	}
	return result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// kubectlOnTerminal runs kubectl with a terminal as its standard streams.
func (s *space) kubectlOnTerminal(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	terminal, other, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	command := cluster.KubectlCommand(ctx, append([]string{"--namespace", s.name}, args...)...)
	command.Stdin, command.Stdout, command.Stderr = other, other, other
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cluster.StartInNetwork(command)
	if err = errors.Join(err, other.Close()); err != nil {
		t.Fatal(err)
	}
	// The read fails with EIO after kubectl has exited and its end is closed.
	output, _ := io.ReadAll(terminal)
	var exited *exec.ExitError
	if err := command.Wait(); err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return result{stdout: string(output), code: command.ProcessState.ExitCode()}
}

// openTerminal returns both ends of a new pseudoterminal (pts(4)): the person's and the program's.
func openTerminal() (person, program *os.File, err error) {
	person, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, person.Close())
	}
	return person, program, nil
}

// exec runs a command in a container of a pod.
func (s *space) exec(t testing.TB, pod, container string, command ...string) result {
	t.Helper()
	return s.kubectl(t, nil, append([]string{"exec", pod, "--container", container, "--"}, command...)...)
}
