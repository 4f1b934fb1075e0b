package step_test

import (
	"os"
	"strings"
	"testing"
)

const unpacked = `,"archive":{"none":{}}`

// An artifact that init leaves to be read later is looked for in its store, with the outcome of a download: the scenes of
// TestAsArgoexec compare that with argoexec's. In its place is an empty file or folder.
func TestPostponed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for chroot(2)")
	}
	argoexec, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	driver, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []scene{
		{name: "file", template: withInputs("", inKey+unpacked), prepare: objects(map[string]string{"k": big}),
			check: holds(0, map[string]string{inputsDir + "/a": `-rw------- ""`})},
		{name: "folder", template: withInputs("", inKey+unpacked), prepare: objects(map[string]string{"k/a": "hello"}),
			check: holds(0, map[string]string{inputsDir + "/a": "drwx------", inputsDir + "/a/a": ""})},
		{name: "mode", template: withInputs("", inKey+unpacked+`,"mode":493`), prepare: objects(map[string]string{"k": big}),
			check: holds(0, map[string]string{inputsDir + "/a": `-rwxr-xr-x ""`})},
		{name: "file by a customer's key", encrypted: byKeyOf(customerKey), template: encrypted(byCustomer, withInputs("", inKey+unpacked)),
			prepare: func(w *world) { withCustomerKey(w); objects(map[string]string{"k": big})(w) },
			check:   holds(0, map[string]string{inputsDir + "/a": `-rw------- ""`})},
		{name: "folder by a customer's key is loaded", encrypted: byKeyOf(customerKey), template: encrypted(byCustomer, withInputs("", inKey+unpacked)),
			prepare: func(w *world) { withCustomerKey(w); objects(map[string]string{"k/a": "hello"})(w) },
			check:   holds(0, map[string]string{inputsDir + "/a": "drwx------", inputsDir + "/a/a": `-rw------- "hello"`})},
		{name: "others are loaded", template: withInputs("", inKey+unpacked, inKey, `"raw":{"data":"x"}`), prepare: objects(map[string]string{"k": big}),
			check: holds(0, map[string]string{inputsDir + "/a": `-rw------- ""`, inputsDir + "/b": `-rw-------`, inputsDir + "/c": `-rw-rw-rw- "x"`})},
		{name: "missing", template: withInputs("", inKey+unpacked)},
		{name: "missing and optional", template: withInputs("", inKey+unpacked+`,"optional":true`)},
		{name: "bucket is missing", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Bucket, "missing")+unpacked)},
		{name: "secret is missing", template: withInputs("", inKey+unpacked), prepare: func(w *world) { w.removeAll("argo/secret") }},
		{name: "secret is wrong", template: withInputs("", inKey+unpacked), prepare: func(w *world) { w.write("argo/secret/s3/secret", "wrong") }},
		{name: "another protocol", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Endpoint, "http://"+s3Endpoint)+unpacked)},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.verb = "init"
			outcomes := map[string]outcome{}
			for _, lazy := range []string{"", "1"} {
				w := newWorld(t, argoexec["4.0"], nil)
				w.bucket = s.newBucket(t)
				w.write("argo/secret/s3/ca", w.bucket.authority)
				w.link(driver, "stand-in/wasm-argoexec")
				s.env = []string{"LAZY=" + lazy}
				outcomes[lazy] = s.run(w, "/stand-in/wasm-argoexec")
			}
			now, later := outcomes[""], outcomes["1"]
			if now.exit != later.exit || now.message != later.message {
				t.Errorf("exit code %d, %q; with a download %d, %q", later.exit, later.message, now.exit, now.message)
			}
			if s.check != nil {
				s.check(t, later)
			}
		})
	}
}
