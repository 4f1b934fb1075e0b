package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

const (
	kills      = 200
	killedCode = "the machine code of a module, "
	pieces     = 10
)

// helpCompile compiles slowly, moves the entry, and trims, again and again, until it is killed.
func helpCompile() {
	dir := os.Getenv(dirEnv)
	c, err := Open(filepath.Join(dir, "cache"), engine)
	if err != nil {
		panic(err)
	}
	fmt.Println("begin")
	for {
		workRound(c, dir)
	}
}

// workRound runs every operation on an entry once.
func workRound(c *Cache, dir string) {
	ctx, digest := context.Background(), digestOf("module")
	entry, err := c.Load(ctx, digest, compileSlowly)
	if err != nil {
		panic(err)
	}
	if err := entry.Close(); err != nil {
		panic(err)
	}
	if err := c.Move(ctx, digest, "key", storeIn(dir, "image")); err != nil {
		panic(err)
	}
	if err := c.Drop(ctx, digest); err != nil {
		panic(err)
	}
	if _, _, err := Trim(ctx, filepath.Join(dir, "cache"), 0, func(_ context.Context, i Info) error { return os.Remove(i.Blob) }); err != nil {
		panic(err)
	}
}

func compileSlowly(_ context.Context, out *os.File) (*control.Module, error) {
	for range pieces {
		if _, err := out.WriteString(killedCode); err != nil {
			return nil, err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return &control.Module{Functions: []string{"_start"}}, nil
}

// However often and wherever a compiling process is killed, every entry that is found is whole, and the next
// process removes the rest.
func TestKilledAtRandomPoints(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	cache := filepath.Join(dir, "cache")
	c := open(t, cache)
	whole := strings.Repeat(killedCode, pieces)
	found, dirty := 0, 0
	round := oneRound(t)
	for i := range kills {
		cmd, stdout := helper(t, "compile", dir)
		if line, err := stdout.ReadString('\n'); err != nil || line != "begin\n" {
			t.Fatalf("helper said %q, %v", line, err)
		}
		time.Sleep(time.Duration(random.Int64N(int64(3 * round))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the helper was not killed")
		}
		if entry, err := c.lookup(digestOf("module")); err == nil {
			found++
			code, err := io.ReadAll(entry.Code)
			if err != nil || string(code) != whole {
				t.Fatalf("kill %d: an entry of %d bytes was handed out, want %d; %v", i, len(code), len(whole), err)
			}
			entry.Close()
		}
		names, err := readNames(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.Contains(name, partSuffix) || strings.Contains(name, lockSuffix) {
				dirty++
				break
			}
		}
		if err := Sweep(cache); err != nil {
			t.Fatal(err)
		}
		noTemporaryFiles(t, c, i)
	}
	t.Logf("%d kills: %d left temporary files, %d a whole entry", kills, dirty, found)
	if dirty == 0 || found == 0 {
		t.Errorf("the kills were not at random points")
	}
	runTrim(t, cache, 1<<20, nil)
	if _, err := c.lookup(digestOf("module")); err != nil {
		wantFiles(t, c)
	}
}

// oneRound measures how long a helper's work takes here and now, so that kills hit all of it.
func oneRound(t *testing.T) time.Duration {
	t.Helper()
	dir := t.TempDir()
	began := time.Now()
	workRound(open(t, filepath.Join(dir, "cache")), dir)
	return time.Since(began)
}

func noTemporaryFiles(t *testing.T, c *Cache, kill int) {
	t.Helper()
	names, err := readNames(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		_, suffix, ok := cutName(name)
		if !ok || suffix != codeSuffix && suffix != indexSuffix {
			t.Fatalf("kill %d: %s was left behind", kill, name)
		}
	}
}
