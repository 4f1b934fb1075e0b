package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		text string
		want Config
	}{
		"empty":         {"", Default()},
		"comments only": {"# nothing\r\n", Default()},
		"all": {`cache_dir = "/srv/cache"
cache_size = "10GiB"
max_module_size = "1GiB"
compile_timeout = "1m30s"
compile_memory = "512 MiB"
max_compilations = 7
precompiled = ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
systemd_cgroup = true
argo_executor = false
lazy_artifacts = false
spool_dir = "/srv/spool"
spool_size = "1GiB"
log_level = "debug"
[[s3]]
endpoint = "HTTP://Store:80/"
`, Config{"/srv/cache", 10 << 30, 1 << 30, 90 * time.Second, 512 << 20, 7, []string{"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}, true, false, false,
			[]Store{{Endpoint: "http://store"}}, "/srv/spool", 1 << 30, "debug", ""}},
		"bytes":       {`max_module_size = "4096"`, with(func(c *Config) { c.MaxModuleSize = 4096 })},
		"integer":     {`max_module_size = 4096`, with(func(c *Config) { c.MaxModuleSize = 4096 })},
		"CRLF":        {"systemd_cgroup = true\r\n", with(func(c *Config) { c.SystemdCgroup = true })},
		"false again": {"systemd_cgroup = false", Default()},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(tc.text))
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"\nmax_modul_size = \"1MiB\"":                              `line 2: unknown key "max_modul_size"`,
		"[limits]\nmemory = \"1MiB\"":                              `unknown key "limits`,
		`max_module_size = "1MB"`:                                  `key "max_module_size": "1MB" is no size`,
		`max_module_size = "-1"`:                                   `is no size`,
		`max_module_size = "9999999TiB"`:                           `is no size`,
		`max_module_size = "0"`:                                    `key "max_module_size": must be more`,
		`compile_timeout = "2"`:                                    `key "compile_timeout": "2" is no duration`,
		`compile_timeout = "-2s"`:                                  `key "compile_timeout"`,
		`compile_memory = "0KiB"`:                                  `key "compile_memory"`,
		`max_compilations = 0`:                                     `key "max_compilations": must be from 1`,
		`max_compilations = 1000000`:                               `key "max_compilations": must be from 1`,
		`cache_dir = "cache"`:                                      `key "cache_dir": "cache" is not an absolute path`,
		`precompiled = "sha256:0123"`:                              `key "precompiled"`,
		`precompiled = ["sha256:0123"]`:                            `key "precompiled": "sha256:0123" is no digest`,
		`precompiled = ["` + strings.Repeat("0", 64) + `"]`:        `is no digest`,
		`precompiled = ["sha256:` + strings.Repeat("A", 64) + `"]`: `is no digest`,
		`spool_dir = "x"`:                                          `key "spool_dir"`,
		`spool_size = "0"`:                                         `key "spool_size"`,
		"[[s3]]\nendpoint = \"ftp://x\"":                           `key "s3", store 1: "ftp://x" is not https://HOST`,
		"[[s3]]\nendpoint = \"https://x\"\nnamespace = \"a\"":      `unknown key "s3.namespace"`,
		"[[s3]]\nendpoint = \"https://x\"\ncredentials = \"/c\"":   `store 1: credentials without namespaces`,
		"[[s3]]\nendpoint = \"https://x\"\nstyle = \"x\"":          `style "x" is none of path, virtual`,
		"[[s3]]\nendpoint = \"https://x\"\nca = \"x\"":             `ca "x" is not an absolute path`,
		`cache_size = 0`:                                           `key "cache_size": must be more`,
		`systemd_cgroup = "yes"`:                                   `key "systemd_cgroup"`,
		`log_level = "loud"`:                                       `key "log_level": "loud" is none of`,
		"systemd_cgroup = true\nlog_level":                         `line 2`,
	} {
		t.Run(text, func(t *testing.T) {
			_, err := Parse([]byte(text))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want something with %q", err, want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %q", err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	absent := Default()
	absent.Source = path
	if c, err := Load(path); err != nil || !reflect.DeepEqual(c, absent) {
		t.Fatalf("absent file: got %+v, %v", c, err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("systemd_cgroup = true\n")
	if c, err := Load(path); err != nil || !c.SystemdCgroup {
		t.Fatalf("got %+v, %v", c, err)
	}
	write("nonsense = 1\n")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path+": line 1: unknown key") {
		t.Fatalf("the error does not name file and key: %v", err)
	}
	if _, err := Load(filepath.Dir(path)); err == nil {
		t.Fatal("a folder was read as a configuration")
	}
}

// The file that install writes has the same values as Default, key by key.
func TestTemplate(t *testing.T) {
	if c, err := Parse([]byte(Template(false))); err != nil || !reflect.DeepEqual(c, Default()) {
		t.Fatalf("got %+v, %v", c, err)
	}
	if c, err := Parse([]byte(Template(true))); err != nil || !c.SystemdCgroup {
		t.Fatalf("got %+v, %v", c, err)
	}
	all := regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAllString(Template(false), "$1")
	want := Default()
	want.LogLevel, want.Precompiled, want.MaxCompilations = "info", []string{}, 4
	if c, err := Parse([]byte(all)); err != nil || !reflect.DeepEqual(c, want) {
		t.Fatalf("uncommented: got %+v, %v", c, err)
	}
	if n := strings.Count(all, "\n") - strings.Count(all, "\n#") - strings.Count(all, "\n\n"); n < 11 {
		t.Fatalf("the template shows %d keys, want 11", n)
	}
}

func BenchmarkLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(Template(true)), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Load(path); err != nil {
			b.Fatal(err)
		}
	}
}
