package module

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The compiled bytes have the digest that their code is kept under, even if a process writes to the module's
// file meanwhile.
func TestFreeze(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(path, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	from := Source{file: file}
	sum := sha256.Sum256([]byte("good"))
	digest := hex.EncodeToString(sum[:])
	for where, folder := range map[string]string{"disk": dir, "memory": filepath.Join(dir, "missing")} {
		frozen, err := from.freeze(t.Context(), digest, folder)
		if err != nil {
			t.Fatal(err)
		}
		defer frozen.Close()
		if err := os.WriteFile(path, []byte("evil"), 0o600); err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(io.NewSectionReader(frozen, 0, 10))
		if string(content) != "good" || err != nil || frozen.Name() != path {
			t.Errorf("on %s: %s holds %q, %v", where, frozen.Name(), content, err)
		}
		if _, err := from.freeze(t.Context(), digest, folder); err == nil || !strings.Contains(err.Error(), path+" changed while it was read") {
			t.Errorf("on %s: got %v", where, err)
		}
		if err := os.WriteFile(path, []byte("good"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	from.stored = true
	frozen, err := from.freeze(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	frozen.Close()
	if _, err := file.Stat(); err != nil {
		t.Errorf("the source is closed: %v", err)
	}
}
