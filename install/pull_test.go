package install

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pullNote begins what install says where pods will lack images.
const pullNote = "note: pods cannot run images of platform wasi/wasm"

const images = "[plugins.'" + imagesPlugin + "']\n"

// Only releases that do not unpack foreign platforms get the setting for pulls, and
// only where nothing speaks against it. Otherwise the report says what that means.
func TestLocalPull(t *testing.T) {
	v3 := func(more string) map[string]string { return map[string]string{"config.toml": "version = 3\n" + more} }
	dropIns := func(main, other string) map[string]string {
		return map[string]string{
			"config.toml":     "version = 3\nimports = ['conf.d/*.toml']\n" + main,
			"conf.d/low.toml": "version = 3\n" + other,
		}
	}
	const verifier = "[plugins.'" + verifierPlugin + "']\nbin_dir = "
	for name, tc := range map[string]struct {
		containerd string
		files      map[string]string
		set        bool
		note       string // part of what the report must say; "" for no note
	}{
		"1.7":                        {"1.7.35", map[string]string{"config.toml": "version = 2\n"}, false, ""},
		"2.1":                        {"2.1.9", v3(""), false, ""},
		"2.2":                        {"2.2.9", v3(""), false, ""},
		"2.3":                        {"2.3.0", v3(""), true, ""},
		"2.4":                        {"2.4.2", v3(""), true, ""},
		"2.10":                       {"2.10.0", v3(""), true, ""},
		"of two parts":               {"2.4", v3(""), true, ""},
		"version open":               {"", v3(""), false, ""},
		"set already":                {"2.4.2", v3(images + "use_local_image_pull = true\n"), false, ""},
		"default in the same file":   {"2.4.2", v3(images + "use_local_image_pull = false\n"), false, "config.toml says use_local_image_pull = false"},
		"table in the same file":     {"2.4.2", v3(images + "snapshotter = 'overlayfs'\n"), false, "has no room for it"},
		"subtable in the same file":  {"2.4.2", v3("[plugins.'" + imagesPlugin + "'.registry]\nconfig_path = '/x'\n"), true, ""},
		"default in the main file":   {"2.4.2", dropIns(images+"use_local_image_pull = false\n", ""), true, ""},
		"refused in another drop-in": {"2.4.2", dropIns("", images+"use_local_image_pull = false\n"), false, "low.toml says"},
		"set in another drop-in":     {"2.4.2", dropIns("", images+"use_local_image_pull = true\n"), false, ""},
		"verifiers elsewhere":        {"2.4.2", v3(verifier + "'VERIFIERS'\n"), false, "image verifiers in"},
		"empty folder of verifiers":  {"2.4.2", v3(verifier + "'EMPTY'\n"), true, ""},
		"verifiers disabled":         {"2.4.2", v3("disabled_plugins = ['" + verifierPlugin + "']\n" + verifier + "'VERIFIERS'\n"), true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill := strings.NewReplacer("VERIFIERS", verifiers(t), "EMPTY", dir)
			files := map[string]string{}
			for name, text := range tc.files {
				files[name] = fill.Replace(text)
			}
			f := newNode(t, tc.containerd, files)
			before := f.files()
			said := strings.Join(f.install().Lines, "\n")
			if got := strings.Contains(strings.Join(written(before, f.files()), "\n"), localPullKey+" = true"); got != tc.set {
				t.Errorf("install wrote the setting: %t, want %t", got, tc.set)
			}
			if tc.note == "" && strings.Contains(said, pullNote) || !strings.Contains(said, tc.note) {
				t.Errorf("want %q in the report:\n%s", tc.note, said)
			}
			installed := f.files()
			if r := f.install(); r.Changed {
				t.Errorf("a second install wrote something: %q", changed(installed, f.files()))
			}
			f.uninstall()
			if after := f.files(); !maps.Equal(after, before) {
				t.Errorf("uninstall leaves other files: %q", changed(before, after))
			}
		})
	}
}

// verifiers is a folder with an image verifier.
func verifiers(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "verify"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// written returns the text that was added to each file.
func written(before, after map[string]string) []string {
	var texts []string
	for _, name := range changed(before, after) {
		texts = append(texts, strings.TrimPrefix(after[name], before[name]))
	}
	return texts
}

// The folder that containerd has for verifiers counts without being named.
func TestDefaultVerifiers(t *testing.T) {
	f := newNode(t, "2.4.2", map[string]string{"config.toml": "version = 3\n"})
	f.options.Verifiers = verifiers(t)
	if said := strings.Join(f.install().Lines, "\n"); !strings.Contains(said, "image verifiers in "+f.options.Verifiers) {
		t.Errorf("the report is %s", said)
	}
}

// Whoever upgrades containerd runs install again: the block follows, both ways, and
// containerd itself agrees each time.
func TestLocalPullFollowsContainerd(t *testing.T) {
	now := filepath.Join(tools(t, "containerd-2.4"), "containerd")
	f := realNode(t, "containerd-2.2", map[string]string{"config.toml": "version = 3\n"})
	before := f.files()
	old := f.options.Containerd
	for _, step := range []struct {
		containerd string
		set        bool
	}{{old, false}, {now, true}, {old, false}, {now, true}} {
		f.options.Containerd = step.containerd
		if r := f.install(); !r.Changed || r.Restart == "" {
			t.Errorf("%s: the report says that nothing changed: %q", step.containerd, r.Lines)
		}
		setting := pullSetting(f.dump())
		if got := setting != nil && *setting; got != step.set {
			t.Errorf("%s reads %s as %v", step.containerd, localPullKey, got)
		}
	}
	f.uninstall()
	if after := f.files(); !maps.Equal(after, before) {
		t.Errorf("uninstall leaves other files: %q", changed(before, after))
	}
}

// What is printed, for templates and for people, holds the setting too.
func TestEntryHoldsLocalPull(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"file":      {"config.toml": "version = 3\n"},
		"generated": {"config.toml": testdata(t, "k3s.toml")},
		"template":  {"config.toml": testdata(t, "k3s.toml.tmpl")},
	} {
		for version, want := range map[string]bool{"2.2.9": false, "2.4.2": true} {
			f := newNode(t, version, files)
			text, err := Entry(context.Background(), f.options)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(text, localPullKey); got != want {
				t.Errorf("%s for %s has the setting: %t\n%s", name, version, got, text)
			}
		}
	}
}

// An entry that somebody wrote by hand counts as installed, with a note when pulls
// lack their setting.
func TestForeignEntryWithoutLocalPull(t *testing.T) {
	for version, want := range map[string]bool{"2.2.9": false, "2.4.2": true} {
		f := newNode(t, version, nil)
		f.write("config.toml", "version = 3\n"+renderEntry(pluginV3, f.options.NodeConfig))
		if said := strings.Join(f.install().Lines, "\n"); strings.Contains(said, pullNote) != want {
			t.Errorf("on %s the report is\n%s", version, said)
		}
		f.write("config.toml", "version = 3\n"+renderEntry(pluginV3, f.options.NodeConfig)+renderLocalPull())
		if said := strings.Join(f.install().Lines, "\n"); strings.Contains(said, pullNote) {
			t.Errorf("on %s with the setting the report is\n%s", version, said)
		}
	}
}
