package step_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// withInputs is a template with input artifacts, each as JSON without its name and its path: those are a and /in/a for
// the first.
func withInputs(mounts string, artifacts ...string) string {
	var list []string
	for i, text := range artifacts {
		name := string(rune('a' + i))
		if !strings.Contains(text, `"path":`) {
			text = `"path":"/in/` + name + `",` + text
		}
		list = append(list, `{"name":"`+name+`",`+text+`}`)
	}
	if mounts != "" {
		mounts = `,"volumeMounts":[` + mounts + `]`
	}
	return `{"name":"t","inputs":{"artifacts":[` + strings.Join(list, ",") + `]},"outputs":{},"metadata":{},` +
		`"container":{"name":"","image":"i","resources":{}` + mounts + `},"archiveLocation":{"archiveLogs":false,` + inS3("wf/pod") + `}}`
}

// objects puts objects into the bucket, by their keys.
func objects(all map[string]string) func(*world) {
	return func(w *world) {
		for key, content := range all {
			w.bucket.put(key, []byte(content))
		}
	}
}

func zipped(files ...string) string {
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for i := 0; i+1 < len(files); i += 2 {
		h := &zip.FileHeader{Name: files[i], Method: zip.Deflate}
		h.SetMode(0o750)
		if strings.HasSuffix(files[i], "/") {
			h.SetMode(0o750 | os.ModeDir)
		}
		f, err := archive.CreateHeader(h)
		if err != nil {
			panic(err)
		}
		fmt.Fprint(f, files[i+1])
	}
	if err := archive.Close(); err != nil {
		panic(err)
	}
	return out.String()
}

const (
	inKey     = `"s3":{"key":"k"}`
	inputsDir = "argo/inputs/artifacts"
)

func mode(h tar.Header, mode int64) tar.Header {
	h.Mode = mode
	return h
}

// big is larger than what is put at once.
var big = strings.Repeat("0123456789abcdef", 1<<16) + "end"

var inputScenes = []scene{
	{
		name: "input by S3", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "input with a place of its own", verb: "init", template: withInputs("", inS3("other/k")), prepare: objects(map[string]string{"other/k": "hello"}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "input is raw", verb: "init", template: withInputs("", `"raw":{"data":"hello ü\n"}`),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw-rw-rw- "hello ü\n"`}),
	},
	{
		name: "input is empty", verb: "init", template: withInputs("", inKey, `"raw":{"data":""}`), prepare: objects(map[string]string{"k": ""}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- ""`, inputsDir + "/b": `-rw-rw-rw- ""`}),
	},
	{
		name: "input of a megabyte", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": big}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- 1048579 bytes`}),
	},
	{
		name: "input is a tarball of a file", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(mode(tarFile("x", "hello"), 0o4751))}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rwxr-x--x "hello"`}),
	},
	{
		name: "input is a tarball of a folder", verb: "init", template: withInputs("", inKey+`,"archive":{"tar":{}}`),
		prepare: objects(map[string]string{"k": tgz(mode(tarDir("d"), 0o700), tarFile("d/x", "hello"), tarDir("d/e/"), tarFile("d/f/y", ""), tarLink("d/l", "x"), tarLink("d/f/up", "../x"))}),
		check:   holds(0, map[string]string{inputsDir + "/a": `drwxr-xr-x`, inputsDir + "/a/x": `-rw-r--r-- "hello"`, inputsDir + "/a/l": "L"}),
	},
	{
		name: "input is a tarball of several files", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarFile("x", "1"), tarFile("y", "2"))}),
		check:   holds(0, map[string]string{inputsDir + "/a/x": `-rw-r--r-- "1"`, inputsDir + "/a/y": `-rw-r--r-- "2"`}),
	},
	{
		name: "input is a tarball of nothing", verb: "init", template: withInputs("", inKey, inKey+`,"archive":{"tar":{}}`),
		prepare: objects(map[string]string{"k": tgz()}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw-------`, inputsDir + "/b": "drwxrwxrwx"}),
	},
	{
		name: "input is a tarball that stays one", verb: "init", template: withInputs("", inKey+`,"archive":{"none":{}}`),
		prepare: objects(map[string]string{"k": tgz(tarFile("x", "1"))}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw-------`}),
	},
	{
		name: "input is no tarball", verb: "init", template: withInputs("", inKey+`,"archive":{"tar":{}}`), prepare: objects(map[string]string{"k": "hello, world"}),
		check: exits(64, "gzip: invalid header"),
	},
	{
		name: "input is half a tarball", verb: "init", template: withInputs("", inKey+`,"archive":{"tar":{}}`),
		prepare: objects(map[string]string{"k": half(tgz(tarFile("x", strings.Repeat("no ", 1000)+fmt.Sprint(time.Unix(0, 0)))))}),
		check:   exits(64, "unexpected EOF"),
	},
	{
		name: "input is a tarball with devices", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarDir("d"), tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
			tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo, Mode: 0o666}, tar.Header{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"})}),
		check: holds(0, map[string]string{inputsDir + "/a": "drwxr-xr-x", inputsDir + "/a/null": "", inputsDir + "/a/hard": ""}),
	},
	{
		name: "input is a zip file", verb: "init", template: withInputs("", inKey+`,"archive":{"zip":{}}`),
		prepare: objects(map[string]string{"k": zipped("d/", "", "d/x", "hello", "d/e/y", "2")}),
		check:   holds(0, map[string]string{inputsDir + "/a/x": `-rwxr-x--- "hello"`, inputsDir + "/a/e": "drwxr-x---"}),
	},
	{
		name: "input is a zip file that is not named one", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": zipped("x", "hello")}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw-------`}),
	},
	{
		name: "input is no zip file", verb: "init", template: withInputs("", inKey+`,"archive":{"zip":{}}`), prepare: objects(map[string]string{"k": "hello"}),
		check: exits(64, "zip: not a valid zip file"),
	},
	{
		name: "input is a folder", verb: "init", template: withInputs("", inKey, `"s3":{"key":"k/"}`), prepare: objects(map[string]string{"k/x": "1", "k/d/y": "2", "kk": "3"}),
		check: holds(0, map[string]string{inputsDir + "/a": "drwx------", inputsDir + "/a/x": `-rw------- "1"`, inputsDir + "/a/d/y": `-rw------- "2"`}),
	},
	{
		name: "input is a folder, not a tarball", verb: "init", template: withInputs("", inKey+`,"archive":{"tar":{}}`), prepare: objects(map[string]string{"k/x": "1"}),
		check: exits(64, "is a directory"),
	},
	{
		name: "input with a mode", verb: "init", template: withInputs("", inKey+`,"mode":493`, `"raw":{"data":"x"},"mode":0,"recurseMode":true`), prepare: objects(map[string]string{"k": "hello"}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rwxr-xr-x "hello"`, inputsDir + "/b": `---------- "x"`}),
	},
	{
		name: "input folder with a mode", verb: "init", template: withInputs("", inKey+`,"mode":493`), prepare: objects(map[string]string{"k/d/x": "1"}),
		check: holds(0, map[string]string{inputsDir + "/a": `drwxr-xr-x`, inputsDir + "/a/d/x": "-rw-------"}),
	},
	{
		name: "input folder with a mode for all", verb: "init", template: withInputs("", inKey+`,"mode":420,"recurseMode":true`), prepare: objects(map[string]string{"k/d/x": "1", "k/y": ""}),
		check: holds(0, map[string]string{inputsDir + "/a": `drw-r--r--`, inputsDir + "/a/d/x": "-rw-r--r--"}),
	},
	{
		name: "input with a mode for a dangling link", verb: "init", template: withInputs("", inKey+`,"mode":420,"recurseMode":true`),
		prepare: objects(map[string]string{"k": tgz(tarLink("d/l", "x"))}),
		check:   exits(64, "no such file or directory"),
	},
	{
		name: "inputs of another user", verb: "init", user: 1000, template: withInputs("", inKey+`,"mode":365,"recurseMode":true`, `"raw":{"data":"x"},"mode":0`),
		prepare: objects(map[string]string{"k": tgz(tarFile("d/x", "1"), mode(tarFile("d/secret", "1"), 0), tarDir("d/e"))}),
		check:   holds(0, map[string]string{inputsDir + "/a": "dr-xr-xr-x", inputsDir + "/a/secret": "-r-xr-xr-x", inputsDir + "/b": "----------"}),
	},
	{
		name: "input folder that a user closes", verb: "init", user: 1000, template: withInputs("", inKey+`,"mode":292,"recurseMode":true`),
		prepare: objects(map[string]string{"k": tgz(tarFile("d/x", "1"))}),
		check:   exits(64, "chmod /argo/inputs/artifacts/a/x: permission denied"),
	},
	{
		name: "input in a place of others", verb: "init", user: 1000, template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), mkdir("mainctrfs/vol")),
		check:   exits(64, "permission denied"),
	},
	{
		name: "input is missing", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"other": ""}),
		check: exits(64, "artifact a failed to load: The specified key does not exist."),
	},
	{
		name: "input is missing and optional", verb: "init", template: withInputs("", inKey+`,"optional":true`, `"raw":{"data":"x"}`),
		check: holds(0, map[string]string{inputsDir + "/a": "", inputsDir + "/b": `-rw-rw-rw- "x"`}),
	},
	{
		name: "input is not supplied", verb: "init", template: withInputs("", `"mode":420`),
		check: exits(64, "required artifact 'a' not supplied"),
	},
	{
		name: "input is not supplied and optional", verb: "init", template: withInputs("", `"optional":true`),
		check: holds(0, map[string]string{inputsDir + "/a": ""}),
	},
	{
		name: "input with a key of many kinds of letters", verb: "init", template: withInputs("", `"s3":{"key":"a b/ü+%25&?#=.txt"}`),
		prepare: objects(map[string]string{"a b/ü+%25&?#=.txt": "hello"}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "input folder with names of many kinds of letters", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k/a b/ü+%25&?#=.txt": "hello"}),
		check:   holds(0, map[string]string{inputsDir + "/a/a b/ü+%25&?#=.txt": `-rw------- "hello"`}),
	},
	{
		name: "input with slashes in the key", verb: "init", template: withInputs("", `"s3":{"key":"/d/k"}`, `"s3":{"key":"d//k"}`, `"s3":{"key":"/d"}`),
		prepare: objects(map[string]string{"d/k": "hello"}),
	},
	{
		name: "input folder with slashes in the key", verb: "init", template: withInputs("", `"s3":{"key":"d//e/"},"optional":true`, `"s3":{"key":"./d"},"optional":true`),
		prepare: objects(map[string]string{"d/e/k": "hello"}),
	},
	{
		name: "input from a store without a region", verb: "init", template: strings.ReplaceAll(withInputs("", inKey), `"region":"us-east-1",`, ""), prepare: objects(map[string]string{"k": "hello"}),
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "input from another region", verb: "init", template: strings.ReplaceAll(withInputs("", inKey), "us-east-1", "eu-west-1"), prepare: objects(map[string]string{"k": "hello"}),
		check: exits(64, "failed to get file"),
	},
	{
		name: "input with a level and an empty strategy", verb: "init", template: withInputs("", inKey+`,"archive":{"tar":{"compressionLevel":1}}`, inKey+`,"archive":{}`),
		prepare: objects(map[string]string{"k": tgz(tarFile("x", "1"))}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw-r--r-- "1"`, inputsDir + "/b": `-rw-r--r-- "1"`}),
	},
	{
		name: "input with the endpoint of another protocol", verb: "init", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Endpoint, "http://"+s3Endpoint)),
		check: exits(64, "failed to create new S3 client"),
	},
	{
		name: "optional input in a bucket that is missing", verb: "init", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Bucket, "missing")+`,"optional":true`),
		check: exits(64, "The specified bucket does not exist"),
	},
	{
		name: "bucket is missing", verb: "init", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Bucket, "missing")),
		check: exits(64, "The specified bucket does not exist"),
	},
	{
		name: "secret is missing", verb: "init", template: withInputs("", inKey), prepare: func(w *world) { w.removeAll("argo/secret") },
		check: exits(64, "open /argo/secret/s3/access: no such file or directory"),
	},
	{
		name: "secret is wrong", verb: "init", template: withInputs("", inKey),
		prepare: func(w *world) { w.write("argo/secret/s3/secret", "wrong") },
		check:   exits(64, "failed to get file: "),
	},
	{
		name: "input on a volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol/"}`, inKey+`,"path":"/vol/d/x"`, inKey+`,"path":"/vol/y/"`),
		prepare: all(objects(map[string]string{"k": "hello"}), mkdir("mainctrfs/vol")),
		check:   holds(0, map[string]string{"mainctrfs/vol/d": "drwx------", "mainctrfs/vol/d/x": `-rw------- "hello"`, "mainctrfs/vol/y": "-rw-------"}),
	},
	{
		name: "input replaces a file on a volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.write("mainctrfs/vol/x", "old") }),
		check:   holds(0, map[string]string{"mainctrfs/vol/x": `-rw------- "hello"`}),
	},
	{
		name: "input replaces a folder on a volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.write("mainctrfs/vol/x/y", "old") }),
		check:   exits(64, "/mainctrfs/vol/x: file exists"),
	},
	{
		name: "input is a volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol"`),
		prepare: all(objects(map[string]string{"k": "hello"}), mkdir("mainctrfs/vol")),
		check:   exits(64, "/mainctrfs/vol: file exists"),
	},
	{
		name: "tarball on a volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/x"`),
		prepare: all(objects(map[string]string{"k": tgz(tarFile("x", "1"), tarFile("y", "2"))}), mkdir("mainctrfs/vol")),
		check:   holds(0, map[string]string{"mainctrfs/vol/x/y": `-rw-r--r-- "2"`}),
	},
	{
		name: "inputs of a script", verb: "init", template: strings.Replace(withInputs("", inKey), `"container":{"name":"",`, `"script":{"source":"s","name":"",`, 1),
		prepare: objects(map[string]string{"k": "hello"}),
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw-------`, "argo/staging/script": "-rwxr-xr-x"}),
	},

	// Faults of the store.
	{
		name: "S3 is busy for a moment", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			return n < 2 && s3Failure(w, 503, "SlowDown")
		},
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "S3 closes connections for a moment", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3:    func(n int, w http.ResponseWriter, _ *http.Request) bool { return n < 2 && s3Cut(w) },
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "S3 refuses", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3:    func(_ int, w http.ResponseWriter, _ *http.Request) bool { return s3Failure(w, 403, "AccessDenied") },
		check: exits(64, "artifact a failed to load: failed to get file: Access Denied"),
	},
	{
		name: "S3 refuses to list", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k/x": "hello"}),
		s3: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			return r.Method == "GET" && s3Failure(w, 403, "AccessDenied")
		},
		check: exits(64, "failed to test if k is a directory: AccessDenied, says the test."),
	},
	{
		name: "S3 is busy for longer", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			return n < 12 && s3Failure(w, 503, "SlowDown")
		},
		check: func(*testing.T, outcome) {},
	},
	{
		name: "S3 is busy with objects for longer", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			return 0 < n && n < 13 && s3Failure(w, 503, "SlowDown")
		},
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "S3 closes connections for longer", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": "hello"}),
		s3:    func(n int, w http.ResponseWriter, _ *http.Request) bool { return n < 12 && s3Cut(w) },
		check: holds(0, map[string]string{inputsDir + "/a": `-rw------- "hello"`}),
	},
	{
		name: "S3 is not there", verb: "init", template: withInputs("", strings.ReplaceAll(inS3("k"), s3Endpoint, "127.0.0.1:1")+`,"optional":true`, inKey),
		without: []string{"3.6", "3.7", "4.0"}, // as ours, after a minute
		during: func(w *world) {
			w.await("attempts", func() bool { return strings.Contains(w.output.String(), "attempt=1") })
			w.terminate()
		},
		check: exits(64, "connection refused"),
	},
	{
		name: "S3 cuts an object once", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": big}),
		s3:      cutBody,
		without: versions, // final for them
		check:   holds(0, map[string]string{inputsDir + "/a": `-rw------- 1048579 bytes`}),
	},

	// By HTTP.
	{
		name: "input by HTTP", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/`+s3Bucket+`/x"}`),
		s3:    func(_ int, w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, "hello"); return true },
		check: holds(0, map[string]string{inputsDir + "/a": `-rw-rw-rw- "hello"`}),
	},
	{
		name: "input by HTTP with credentials", verb: "init",
		template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x","headers":[{"name":"X-A","value":"1"},{"name":"X-A","value":"2"}],"auth":{"clientCert":{},"oauth2":{},`+
			`"basicAuth":{"usernameSecret":{"name":"s3","key":"access"},"passwordSecret":{"name":"s3","key":"secret"}}}}`),
		s3: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			name, password, _ := r.BasicAuth()
			fmt.Fprint(w, r.Method, r.URL, name, password, r.Header["X-A"], r.Header["Accept-Encoding"])
			return true
		},
		check: holds(0, map[string]string{inputsDir + "/a": `-rw-rw-rw- "GET/xaccess-1secret-1[1 2]`}),
	},
	{
		name: "input by HTTP elsewhere", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"}`),
		s3: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 0 {
				http.Redirect(w, r, "/y", http.StatusFound)
			} else {
				fmt.Fprint(w, r.URL)
			}
			return true
		},
		check: holds(0, map[string]string{inputsDir + "/a": `-rw-rw-rw- "/y"`}),
	},
	{
		name: "input by HTTP is missing", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"}`), s3: status(404),
		check: exits(64, "artifact a failed to load: 404 Not Found"),
	},
	{
		name: "input by HTTP is missing and optional", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"},"optional":true`), s3: status(404),
		check: holds(0, map[string]string{inputsDir + "/a": ""}),
	},
	{
		name: "input by HTTP from nobody", verb: "init", template: withInputs("", `"http":{"url":"http://127.0.0.1:1/x"},"optional":true`, inKey),
		check: exits(64, "connection refused"),
	},
	{
		name: "input by HTTP from no address", verb: "init", template: withInputs("", `"http":{"url":"http://[::1/x"}`, inKey),
		check: exits(64, "missing ']' in host"),
	},
	{
		name: "input by HTTP is cut off", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"}`),
		s3:    func(_ int, w http.ResponseWriter, r *http.Request) bool { return cutBody(1, w, r) },
		check: exits(64, "unexpected EOF"),
	},
	{
		name: "input by HTTP fails", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"},"optional":true`), s3: status(500),
		check: exits(64, "/x failed with reason: 500 Internal Server Error"),
	},

	// Hostile archives, stores and volumes.
	{
		name: "input tarball leads outside", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": tgz(tarFile("d/../../x", "1"))}),
		check: exits(64, "illegal file path: d/../../x"),
	},
	{
		name: "input tarball with an absolute path", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": tgz(tarFile("/root/x", "1"))}),
		check: holds(0, map[string]string{inputsDir + "/a/x": `-rw-r--r-- "1"`}),
	},
	{
		name: "input tarball of a dot", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": tgz(tarDir("./"), tarFile("./x", "1"))}),
		check: exits(64, "illegal file path: ./"),
	},
	{
		name: "input tarball with a link outside", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarLink("d/l", "../../x"))}),
		check:   exits(64, "illegal symlink target: d/l -> ../../x"),
	},
	{
		name: "input tarball with an absolute link", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": tgz(tarLink("l", "/root"))}),
		check: exits(64, "illegal symlink target: l -> /root"),
	},
	{
		name: "input tarball with a link to itself", verb: "init", template: withInputs("", inKey), prepare: objects(map[string]string{"k": tgz(tarLink("d/l", ".."))}),
		check: exits(64, "illegal symlink target: d/l -> .."),
	},
	{
		name: "input tarball with a file below a link", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarDir("d/e"), tarLink("d/l", "e"), tarFile("d/l/x", "1"))}),
		check:   holds(0, map[string]string{inputsDir + "/a/e/x": `-rw-r--r-- "1"`}),
	},
	{
		name: "input tarball with a link that is moved outside", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarDir("d/e/f"), tarLink("l", "d/e/f"), tarLink("m", "l/../../../.."), tarFile("m/x", "1"))}),
		check:   exits(64, "m"),
	},
	{
		name: "input tarball with a file through links", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarDir("d/e/f"), tarLink("d/l", "e/f"), tarLink("d/m", "l/../../.."), tarFile("d/m/x", "1"))}),
		check:   exits(64, "illegal"),
	},
	{
		name: "input tarball with a file twice", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarFile("d/x", "long text"), tarFile("d/x", "short"))}),
		check:   holds(0, map[string]string{inputsDir + "/a/x": `-rw-r--r-- "shorttext"`}), // as upstream
	},
	{
		name: "input tarball with a file in the place of a folder", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarDir("d/x"), tarFile("d/x", "1"))}),
		check:   exits(64, "/d/x: is a directory"),
	},
	{
		name: "input tarball with a link twice", verb: "init", template: withInputs("", inKey),
		prepare: objects(map[string]string{"k": tgz(tarLink("d/l", "x"), tarLink("d/l", "y"))}),
		check:   exits(64, "/d/l: file exists"),
	},
	{
		name: "input zip file leads outside", verb: "init", template: withInputs("", inKey+`,"archive":{"zip":{}}`), prepare: objects(map[string]string{"k": zipped("../x", "1")}),
		check: exits(64, ": Illegal file path"),
	},
	{
		name: "input zip file with an absolute path", verb: "init", template: withInputs("", inKey+`,"archive":{"zip":{}}`), prepare: objects(map[string]string{"k": zipped("/root/x", "1")}),
		check: holds(0, map[string]string{inputsDir + "/a/x": `-rwxr-x--- "1"`}),
	},
	{
		name: "input folder leads outside", verb: "init", template: withInputs("", inKey),
		s3: func(n int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Query().Has("list-type"):
				fmt.Fprint(w, `<ListBucketResult><Name>b</Name><Contents><Key>k/../../../../root/x</Key></Contents></ListBucketResult>`)
			case strings.HasSuffix(r.URL.Path, "/k"):
				w.WriteHeader(http.StatusNotFound)
			default:
				w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
				fmt.Fprint(w, "evil")
			}
			return true
		},
		without: versions, // they write there
		check:   both(exits(64, "illegal file path: k/../../../../root/x"), lacks("root/x")),
	},
	{
		name: "input below a link that leads outside", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/d/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.symlink("/root", "mainctrfs/vol/d") }),
		without: versions, // they write there
		check:   both(exits(64, "failed to create artifact temporary parent directory"), lacks("root/x")),
	},
	{
		name: "input below a relative link that leads outside", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/d/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.symlink("../../root", "mainctrfs/vol/d") }),
		without: versions, // they write there
		check:   both(exits(64, "failed to create artifact temporary parent directory"), lacks("root/x")),
	},
	{
		name: "input below a link within the volume", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/d/x"`),
		prepare: all(objects(map[string]string{"k": "hello"}), mkdir("mainctrfs/vol/e"), func(w *world) { w.symlink("e", "mainctrfs/vol/d") }),
		check:   holds(0, map[string]string{"mainctrfs/vol/e/x": `-rw------- "hello"`}),
	},
	{
		name: "input in the place of a link and of a FIFO", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, inKey+`,"path":"/vol/x"`, inKey+`,"path":"/vol/y","mode":511`),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.symlink("/root/x", "mainctrfs/vol/x"); w.fifo("mainctrfs/vol/y") }),
		check:   both(holds(0, map[string]string{"mainctrfs/vol/x": `-rw------- "hello"`, "mainctrfs/vol/y": `-rwxrwxrwx "hello"`}), lacks("root/x")),
	},
	{
		name: "FIFO where an input is loaded", verb: "init", template: withInputs(`{"name":"v","mountPath":"/vol"}`, `"raw":{"data":"hello"},"path":"/vol/x"`, inKey),
		prepare: all(objects(map[string]string{"k": "hello"}), func(w *world) { w.fifo("mainctrfs/vol/x.tmp") }),
		without: versions, // they wait for ever
		check:   holds(0, map[string]string{"mainctrfs/vol/x": `-rw-rw-rw- "hello"`, "mainctrfs/vol/x.tmp": "p"}),
	},
	{
		name: "secret is a FIFO", verb: "init", template: withInputs("", inKey), prepare: func(w *world) { w.removeAll("argo/secret/s3/secret"); w.fifo("argo/secret/s3/secret") },
		without: versions, // they wait for ever
		check:   exits(64, "it is not a regular file"),
	},
}

func status(code int) s3Fault {
	return func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
}

// cutBody cuts the answer to the first GET of an object, the second request, after half of it.
func cutBody(n int, w http.ResponseWriter, _ *http.Request) bool {
	if n != 1 {
		return false
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(big)))
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	fmt.Fprint(w, big[:len(big)/2])
	_ = http.NewResponseController(w).Flush()
	return s3Cut(w)
}

// lacks checks that there is no file at a path.
func lacks(name string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if have, ok := o.files[name]; ok {
			t.Errorf("%s is %s", name, have)
		}
	}
}

func half(text string) string { return text[:len(text)/2] }

func mkdir(name string) func(*world) {
	return func(w *world) { w.must(os.MkdirAll(w.path(name), 0o755)) }
}

func all(steps ...func(*world)) func(*world) {
	return func(w *world) {
		for _, f := range steps {
			f(w)
		}
	}
}
