package request

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Artifact{
		"s3://bucket/a/b.csv -> /in/b.csv":      {Path: "/in/b.csv", At: Place{Bucket: "bucket", Key: "a/b.csv"}},
		" s3://bucket/a->b.csv->/in//x ":        {Path: "/in/x", At: Place{Bucket: "bucket", Key: "a->b.csv"}},
		"s3://bucket/a%3Fb%25 -> /in/x":         {Path: "/in/x", At: Place{Bucket: "bucket", Key: "a?b%"}},
		"s3://bucket/prefix/ -> /in/dir":        {Path: "/in/dir", Folder: true, At: Place{Bucket: "bucket", Key: "prefix/"}},
		"s3://bucket -> /in/dir/":               {Path: "/in/dir", Folder: true, At: Place{Bucket: "bucket"}},
		"/out/r.csv -> s3://bucket/r.csv":       {Output: true, Path: "/out/r.csv", At: Place{Bucket: "bucket", Key: "r.csv"}},
		"/out -> s3://bucket/r/?on=always":      {Output: true, Folder: true, Always: true, Path: "/out", At: Place{Bucket: "bucket", Key: "r/"}},
		"/out -> s3://bucket/r.tgz?archive=tgz": {Output: true, Folder: true, Archive: true, Path: "/out", At: Place{Bucket: "bucket", Key: "r.tgz"}},
		"s3://bucket/k?endpoint=HTTPS://S3.example.org:443/&region=eu&style=path&versionId=v&sse=c&container=main&credentials=secret:s3 -> /in/x": {
			Container: "main", Path: "/in/x",
			At: Place{Endpoint: "https://s3.example.org", Region: "eu", Style: PathStyle, Bucket: "bucket", Key: "k", Version: "v",
				Credentials: "secret:s3", Encryption: Encryption{Kind: CustomerEncryption}},
		},
		"/out/x -> s3://bucket/k?sse=kms:alias/a": {Output: true, Path: "/out/x", At: Place{Bucket: "bucket", Key: "k", Encryption: Encryption{KMSEncryption, "alias/a"}}},
	} {
		want.Name = "n"
		got, err := Parse(map[string]string{Prefix + "n": text, "other": "x"}, "main")
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	got, err := Parse(map[string]string{Prefix + "n": "s3://bucket/k?container=other -> /in/x"}, "main")
	if len(got) != 0 || err != nil {
		t.Errorf("an artifact of another container: %v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "is neither",
		"/in/x":                                 "is neither",
		"s3://bucket/k":                         "is not s3://BUCKET/KEY -> /PATH",
		"s3://bucket/k -> in/x":                 "not an absolute path",
		"s3://bucket/k -> ":                     "not an absolute path",
		"s3://bucket/k -> /in/../../etc/passwd": `has ".."`,
		"s3://bucket/k -> /":                    "root folder",
		"/x -> s3://bucket/k":                   "root folder",
		"s3://bucket/k -> /in/x/":               "ends with a slash",
		"s3://bucket/k -> /proc/self/x":         "/proc",
		"s3://bucket/k -> /dev/null":            "/dev",
		"s3://bucket/k -> /var/run/secrets/x":   "/var/run",
		"s3://bucket/k -> /etc/hosts":           "/etc/hosts",
		"s3://bucket/ -> /etc":                  "/etc/hosts",
		"/etc/x -> s3://bucket/k":               "/etc/hosts",
		"s3://b/k -> /in/x":                     "no name of a bucket",
		"s3://../k -> /in/x":                    "no name of a bucket",
		"s3://user@host/k -> /in/x":             "no name of a bucket",
		"s3://bucket/a//b -> /in/x":             "empty part",
		"s3://bucket//a -> /in/x":               "empty part",
		"s3://bucket/a/../b -> /in/x":           `has "." or ".." as a part`,
		"s3://bucket/a/%2e%2e/b -> /in/x":       `has "." or ".." as a part`,
		"s3://bucket/%2e%2e -> /in/x":           `has "." or ".." as a part`,
		"s3://bucket/a%00b -> /in/x":            "control characters",
		"s3://bucket/a%0Ab -> /in/x":            "control characters",
		"s3://bucket/a\nb -> /in/x":             "control characters",
		"s3://bucket/a%ffb -> /in/x":            "not UTF-8",
		"s3://bucket/a%zz -> /in/x":             "invalid URL escape",
		"s3://bucket/" + strings.Repeat("k", 1025) + " -> /in/x": "S3 allows 1024",
		"s3://bucket/k?unknown=1 -> /in/x":                       "unknown option",
		"s3://bucket/k?region=a&region=b -> /in/x":               "needs one value",
		"s3://bucket/k?region= -> /in/x":                         "needs one value",
		"s3://bucket/k?region=x.example.org/ -> /in/x":           "no name of a region",
		"s3://bucket/k?on=always -> /in/x":                       "is for outputs",
		"/out/x -> s3://bucket/k?versionId=1":                    "is for inputs",
		"/out/x -> s3://bucket/k?on=never":                       "none of always, success",
		"/out/x -> s3://bucket/k/?archive=tgz":                   "makes one object",
		"s3://bucket/k/?versionId=1 -> /in/x":                    "for one object",
		"s3://bucket/k?sse=none -> /in/x":                        "none of s3, kms, c",
		"s3://bucket/k?sse=c:key -> /in/x":                       "only kms",
		"s3://bucket/k?endpoint=ftp://x -> /in/x":                "not https://HOST",
		"s3://bucket/k?endpoint=https://x/y -> /in/x":            "more than a scheme",
		"s3://bucket/k?endpoint=https://u:p@x -> /in/x":          "more than a scheme",
		"s3://bucket/k?credentials=mine -> /in/x":                "none of node",
		"s3://bucket/k?credentials=secret:a/b -> /in/x":          "none of node",
		"gs://bucket/k -> /in/x":                                 "is not s3://BUCKET/KEY",
	} {
		_, err := Parse(map[string]string{Prefix + "n": text}, "main")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want something with %q", text, err, want)
		}
	}
	for _, name := range []string{"", "a b", "ä", strings.Repeat("n", 64), "a/b"} {
		if _, err := Parse(map[string]string{Prefix + name: "s3://bucket/k -> /in/x"}, ""); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}

func TestParseRefusesTwo(t *testing.T) {
	for name, tc := range map[string]struct{ a, b, want string }{
		"one path":               {"s3://bucket/a -> /in/x", "s3://bucket/b -> /in/x", "both are at /in/x"},
		"one path but a slash":   {"s3://bucket/a -> /in/x", "s3://bucket/a/ -> /in/x/", "both are at /in/x"},
		"nested":                 {"s3://bucket/a/ -> /in", "s3://bucket/b -> /in/x", "in the other's folder"},
		"input in an output's":   {"s3://bucket/a -> /out/in", "/out/x -> s3://bucket/b", "an output needs a folder without inputs"},
		"outputs' folders":       {"/out/x -> s3://bucket/a", "/out/sub/x -> s3://bucket/b", "the folder of"},
		"an output's own input":  {"s3://bucket/a -> /in/x", "/out/x -> s3://bucket/a", "at least one is written"},
		"an output in a folder":  {"s3://bucket/d/ -> /in/x", "/out/x -> s3://bucket/d/a", "at least one is written"},
		"a folder over an input": {"s3://bucket/d/a -> /in/x", "/out -> s3://bucket/d/", "at least one is written"},
		"two outputs, one key":   {"/out/x -> s3://bucket/a", "/out/y -> s3://bucket/a", "at least one is written"},
	} {
		_, err := Parse(map[string]string{Prefix + "a": tc.a, Prefix + "b": tc.b}, "main")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want something with %q", name, err, tc.want)
		}
	}
	got, err := Parse(map[string]string{
		Prefix + "a": "s3://bucket/d/a -> /in/x", Prefix + "b": "s3://bucket/d/ab -> /in/y",
		Prefix + "c": "/out/x -> s3://bucket/a", Prefix + "d": "/out/y -> s3://bucket/b", Prefix + "e": "/o2 -> s3://bucket/d2/",
	}, "main")
	if err != nil || len(got) != 5 {
		t.Errorf("artifacts beside each other: %v, %v", got, err)
	}
}

// What is taken has no path and no key that leads elsewhere.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"s3://bucket/a/b.csv -> /in/b.csv", "/out/r -> s3://bucket/r/?on=always&archive=none", "s3://bucket/k?endpoint=http://x:9000&sse=kms:k -> /a/b/",
		"s3://bucket/a/%2e%2e/b -> /in/x", "-> s3://", "s3://bucket/->/->",
	} {
		f.Add("n", text)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		all, err := Parse(map[string]string{Prefix + name: text}, "")
		if err != nil {
			return
		}
		for _, a := range all {
			if !strings.HasPrefix(a.Path, "/") || a.Mountpoint() == "/" || strings.Contains(a.Path+"/", "/../") || strings.ContainsRune(a.Path, 0) {
				t.Fatalf("path %q of %q", a.Path, text)
			}
			if k := "/" + a.At.Key + "/"; strings.Contains(k, "/../") || strings.Contains(k, "/./") || strings.HasPrefix(k, "//") && a.At.Key != "" {
				t.Fatalf("key %q of %q", a.At.Key, text)
			}
			if a.Folder != (a.Archive || a.At.Key == "" || strings.HasSuffix(a.At.Key, "/")) {
				t.Fatalf("folder of %q: %+v", text, a)
			}
		}
	})
}
