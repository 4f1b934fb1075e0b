package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStore(t *testing.T) {
	c, err := Parse([]byte(`
[[s3]]
endpoint = "https://store.example.org"
namespaces = ["a"]
buckets = ["a-data"]
credentials = "/a"
[[s3]]
endpoint = "https://store.example.org:443/"
namespaces = ["a", "b"]
credentials = "/b"
default = true
[[s3]]
endpoint = "http://open:9000"
[[s3]]
endpoint = "https://all.example.org"
namespaces = ["*"]
credentials = "/all"
`))
	if err != nil {
		t.Fatal(err)
	}
	const none = "none"
	for _, tc := range []struct{ endpoint, namespace, bucket, want string }{
		{"https://store.example.org", "a", "a-data", "/a"},
		{"https://store.example.org", "a", "other", "/b"},
		{"https://store.example.org", "b", "a-data", "/b"},
		{"https://store.example.org", "c", "a-data", none},
		{"https://store.example.org", "", "a-data", none},
		{"", "b", "x", "/b"},
		{"", "c", "x", none},
		{"http://store.example.org", "a", "a-data", none},
		{"http://open:9000", "c", "x", ""},
		{"https://all.example.org", "c", "x", "/all"},
	} {
		got := none
		if s, ok := c.Store(tc.endpoint, tc.namespace, tc.bucket); ok {
			got = s.Credentials
		}
		if got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestStoreRefuses(t *testing.T) {
	for line, want := range map[string]string{
		`buckets = ["ok-1", "Data"]`:      "no name of a bucket by the rules of S3",
		`buckets = ["data/"]`:             "no name of a bucket",
		`buckets = ["data."]`:             "no name of a bucket",
		`buckets = ["data-s3alias"]`:      "no access point",
		`region = "eu/x"`:                 "no name of a region",
		`style = "host"`:                  "style",
		`credentials = "/keys"`:           "credentials without namespaces",
		`ca = "ca.pem"`:                   "not an absolute path",
		`endpoint = "https://x.example/"`: "",
	} {
		text := "[[s3]]\n" + line + "\n"
		if !strings.HasPrefix(line, "endpoint") {
			text += "endpoint = \"https://x.example\"\n"
		}
		if _, err := Parse([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want something with %q", line, err, want)
		}
	}
}

func TestLoadCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.toml")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	const good = "access_key = \"a\"\nsecret_key = \"the secret\"\nsession_token = \"t\"\ncustomer_key = \"k\"\n"
	write(good, 0o600)
	if c, err := LoadCredentials(path); err != nil || c != (Credentials{"a", "the secret", "t", "k"}) {
		t.Fatalf("got %+v, %v", c, err)
	}
	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"others may read": {good, 0o644, "only root can read"},
		"a group may":     {good, 0o640, "only root can read"},
		"unknown key":     {good + "secret = \"the secret\"\n", 0o600, "are no TOML with the keys"},
		"no TOML":         {"the secret", 0o600, "are no TOML with the keys"},
		"no key":          {"access_key = \"a\"\n", 0o600, "secret_key is missing"},
	} {
		write(tc.text, tc.mode)
		_, err := LoadCredentials(path)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want something with %q and the file", name, err, tc.want)
		} else if strings.Contains(err.Error(), "the secret") {
			t.Errorf("%s: the error has a part of the file: %v", name, err)
		}
	}
	write(good, 0o600)
	if err := os.Chown(path, 65534, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCredentials(path); err == nil {
		t.Error("another user's file was read")
	}
	if _, err := LoadCredentials(filepath.Dir(path)); err == nil {
		t.Error("a folder was read")
	}
}
