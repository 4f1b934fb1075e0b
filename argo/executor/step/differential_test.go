package step_test

import (
	"fmt"
	"maps"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/testapiserver"
)

// scene is one run of init or wait, to compare with a real argoexec's.
type scene struct {
	name string
	// verb is init or wait, wait if empty. The template is given to it as the controller does.
	verb     string
	template string
	env      []string
	answer   testapiserver.Answer
	// s3 answers requests in the S3 server's place. A template with an address of it has a server.
	s3 s3Fault
	// tls gives the S3 server a certificate. The key ca of the secret is it.
	tls bool
	// encrypted has a server that encrypts in the S3 server's place, with a certificate.
	encrypted encryption
	prepare   func(*world)
	// user is the program's user, root if it is 0.
	user   uint32
	during func(*world)
	// without names the versions that are known to differ, and why is in a comment of the scene.
	without []string
	// loosely compares requests as a set, without the empty reports of progress.
	loosely bool
	// briefly compares only exit codes and termination messages: argoexec leaves parts of what it could not write.
	briefly bool
	// check looks at our outcome by itself, so that the comparison does not compare nothing.
	check func(*testing.T, outcome)
}

// TestAsArgoexec runs each scene under argoexec, of every version, and under its stand-in, and compares
// what they leave.
func TestAsArgoexec(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for chroot(2)")
	}
	argoexec, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Concat(outputScenes, initScenes, inputScenes, waitScenes, diskScenes, encryptionScenes) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.compare(t, argoexec, ours)
		})
	}
}

func (s scene) compare(t *testing.T, argoexec map[string]string, ours string) {
	outcomes := map[string]outcome{}
	var lock sync.Mutex
	var all sync.WaitGroup
	run := func(version, real string) {
		w := newWorld(t, real, s.answer)
		if strings.Contains(s.template, s3Endpoint) {
			w.bucket = s.newBucket(t)
			w.write("argo/secret/s3/ca", w.bucket.authority)
		}
		file := "/bin/argoexec"
		if version == "ours" {
			w.link(ours, "stand-in/wasm-argoexec")
			file = "/stand-in/wasm-argoexec"
		}
		all.Go(func() {
			o := s.run(w, file)
			lock.Lock()
			defer lock.Unlock()
			outcomes[version] = o
		})
	}
	run("ours", argoexec["4.0"])
	for _, version := range versions {
		if !slices.Contains(s.without, version) {
			run(version, argoexec[version])
		}
	}
	all.Wait()
	for _, version := range versions {
		if real, ok := outcomes[version]; ok {
			s.differences(t, version, real, outcomes["ours"])
		}
	}
	if s.check != nil {
		s.check(t, outcomes["ours"])
	}
	if t.Failed() || testing.Verbose() {
		for version, o := range outcomes {
			t.Logf("%s: exit code %d, after %v, message %q, %d requests, log:\n%s", version, o.exit, o.took.Round(time.Millisecond), o.message, len(o.requests), o.log)
		}
	}
}

func (s scene) newBucket(t *testing.T) *bucket {
	t.Helper()
	if s.encrypted != nil {
		return newEncryptedBucket(t, s.s3, s.encrypted)
	}
	return newBucket(t, s.s3, s.tls)
}

func (s scene) run(w *world, file string) outcome {
	verb, env, template := s.verb, s.env, s.template
	if verb == "" {
		verb = "wait"
	}
	if w.bucket != nil {
		template = w.bucket.fill(template)
	}
	if verb == "init" {
		env = append([]string{"ARGO_TEMPLATE=" + template}, env...)
	} else if template != "" {
		w.argo("template", template)
	}
	if s.prepare != nil {
		s.prepare(w)
	}
	began := time.Now()
	w.user = s.user
	w.start(file, []string{verb}, env)
	if s.during != nil {
		s.during(w)
	}
	return w.finish(began)
}

// temporary is what temporary names have in addition: ours, and minio-go's.
var temporary = regexp.MustCompile(`\.[A-Z2-7]{26}\b|[0-9a-f]{64}\.part\.minio`)

// partOf matches the names of what argoexec loads and unpacks.
var partOf = regexp.MustCompile(`\.tmp(dir)?($|/|[0-9a-f]{64}\.part\.minio)`)

func (s scene) differences(t *testing.T, version string, want, have outcome) {
	t.Helper()
	if want.exit != have.exit {
		t.Errorf("exit code %d, argoexec %s has %d", have.exit, version, want.exit)
	}
	if temporary.ReplaceAllString(want.message, "") != temporary.ReplaceAllString(have.message, "") {
		t.Errorf("termination message %q, argoexec %s has %q", have.message, version, want.message)
	}
	if s.briefly {
		return
	}
	for _, name := range merge(want.files, have.files) {
		// argoexec may send SIGKILL, too, when the containers have just ended after SIGTERM: two of its threads race.
		// What argoexec has loaded in part stays there if it fails.
		if path.Base(name) != "signal" && !partOf.MatchString(name) && want.files[name] != have.files[name] {
			t.Errorf("%s is %s\nargoexec %s has %s", name, have.files[name], version, want.files[name])
		}
	}
	for _, key := range merge(want.objects, have.objects) {
		if want.objects[key] != have.objects[key] {
			t.Errorf("object %s is %s\nargoexec %s has %s", key, have.objects[key], version, want.objects[key])
		}
	}
	wanted, had := s.told(want.requests), s.told(have.requests)
	if !reflect.DeepEqual(wanted, had) {
		t.Errorf("requests:\n%s\nargoexec %s has:\n%s", strings.Join(had, "\n"), version, strings.Join(wanted, "\n"))
	}
}

// merge returns the keys of both, in order.
func merge(a, b map[string]string) []string {
	both := maps.Clone(a)
	if both == nil {
		both = map[string]string{}
	}
	maps.Copy(both, b)
	return slices.Sorted(maps.Keys(both))
}

// told describes requests.
func (s scene) told(requests []testapiserver.Request) []string {
	var told []string
	for _, r := range requests {
		text := fmt.Sprintf("%s %s %s %s", r.Method, r.Path, r.ContentType, short([]byte(fmt.Sprint(r.Body))))
		if s.loosely && (len(r.Body.(map[string]any)) == 0 || slices.Contains(told, text)) && r.Method == "PATCH" && len(r.Body.(map[string]any)) <= 1 {
			continue
		}
		told = append(told, text)
	}
	return told
}
