package module

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// loaderWith returns a loader whose program wasm-client is a shell script. It counts how often
// the program is placed.
func loaderWith(t *testing.T, script string) (l *Loader, placed *int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wasm-client-1")
	placed = new(int)
	place := func(string) (*os.File, string, error) {
		*placed++
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			return nil, "", err
		}
		f, err := os.Open(path)
		return f, "1", err
	}
	return &Loader{Address: "/run/c.sock", Namespace: "k8s.io", Programs: Programs{Client: place}}, placed
}

func TestFindImage(t *testing.T) {
	l, _ := loaderWith(t, `[ "$*" = "find --address /run/c.sock --namespace k8s.io --container id" ] || { echo "got $*" >&2; exit 1; }
echo '{"image":"i","modules":[{"name":"app.wasm"}]}'`)
	found, _, err := l.findImage(t.Context(), "id")
	if err != nil || found.Image != "i" || len(found.Modules) != 1 || found.Modules[0].Name != "app.wasm" {
		t.Errorf("got %+v, %v", found, err)
	}
}

// Of containerd's environment the program gets only PATH.
func TestFindImageEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://example.com")
	l, _ := loaderWith(t, `[ -z "$HTTP_PROXY" ] && [ -n "$PATH" ] || exit 1; echo '{}'`)
	if found, _, err := l.findImage(t.Context(), "id"); err != nil || found.Image != "" {
		t.Errorf("got %+v, %v", found, err)
	}
}

func TestFindImageFails(t *testing.T) {
	for script, want := range map[string]string{
		`echo "image i: no" >&2; exit 1`: "image i: no",
		`exit 3`:                         "wasm-client find: exit status 3",
		`echo '{'`:                       "read the answer of wasm-client find: ",
	} {
		l, _ := loaderWith(t, script)
		found, _, err := l.findImage(t.Context(), "id")
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %+v, %v; want %q", script, found, err, want)
		}
	}
}

func TestFindImageGivesUp(t *testing.T) {
	l, _ := loaderWith(t, `exec sleep 600`)
	_, err := l.runClient(t.Context(), time.Millisecond, &ask.Find{Container: "id"})
	if err == nil || !strings.Contains(err.Error(), "has not answered wasm-client find within 1ms") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.findImage(ctx, "id"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A program that an upgrade has removed is placed again.
func TestImagesAfterUpgrade(t *testing.T) {
	l, placed := loaderWith(t, `echo '{}'`)
	for want := range 2 {
		for range 2 {
			if _, _, err := l.findImage(t.Context(), "id"); err != nil {
				t.Fatal(err)
			}
		}
		if *placed != want+1 {
			t.Errorf("placed %d times, want %d", *placed, want+1)
		}
		if err := os.Remove(l.client.Name()); err != nil {
			t.Fatal(err)
		}
	}
	l.client.Close()
}
