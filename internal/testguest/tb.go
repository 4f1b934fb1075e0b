package testguest

import (
	"path/filepath"
	"testing"
)

// Build is [File] for tests: it fails the test instead of returning an error.
func Build(t testing.TB, name string) string {
	t.Helper()
	return must(t, func() (string, error) { return File(name) })
}

// BuildComponent returns the [Component] of the named guest.
func BuildComponent(t testing.TB, name string) string {
	t.Helper()
	core := Build(t, name)
	return must(t, func() (string, error) { return Component(core) })
}

// Image is [WriteImage] for tests. The tar lives as long as the test.
func Image(t testing.TB, ref string, opts ImageOpts) string {
	t.Helper()
	tarPath := filepath.Join(t.TempDir(), "image.tar")
	if err := WriteImage(tarPath, ref, opts); err != nil {
		t.Fatal(err)
	}
	return tarPath
}

// Wasm packs the named guest as /app.wasm with cmd as its default arguments; see [WasmImage].
func Wasm(t testing.TB, ref, guest string, cmd ...string) string {
	t.Helper()
	return Image(t, ref, must(t, func() (ImageOpts, error) { return WasmImage(guest, cmd...) }))
}

// Busybox packs the native image that [BusyboxImage] describes.
func Busybox(t testing.TB, ref string) string {
	t.Helper()
	return Image(t, ref, must(t, BusyboxImage))
}

func must[T any](t testing.TB, get func() (T, error)) T {
	t.Helper()
	value, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return value
}
