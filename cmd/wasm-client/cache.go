package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
)

// cacheFlags adds the flags of the verbs about the compile cache: the node's
// configuration, and the engine of this shim, which the shim adds.
func cacheFlags(set *flag.FlagSet) (configured, engine *string) {
	configured = set.String("config", config.DefaultPath, "the `file` with the node's configuration, which names the cache")
	engine = set.String("engine", "", "the `key` of this shim's own engine")
	return configured, engine
}

// cacheList prints a table of the entries, the most recently used first.
func cacheList(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("cache ls", "[--config FILE]", stdio)
	configured, engine := cacheFlags(set)
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	c, err := config.Load(*configured)
	if err != nil {
		return err
	}
	all, err := cache.List(ctx, c.CacheDir)
	if err != nil {
		return fmt.Errorf("list %s: %w", c.CacheDir, err)
	}
	table := tabwriter.NewWriter(stdio.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODULE\tNAME\tSIZE\tLAST USE\tENGINE\tKEPT BY\tIN USE\tCOMPILED FOR")
	var total int64
	for i := len(all) - 1; i >= 0; i-- {
		e := all[i]
		total += e.Size
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shortKey(e.Digest), text.Printable(e.Name), bytesOf(e.Size), e.Used.Format(time.DateTime),
			age(e.Engine, *engine), text.Printable(keptBy(e)), yesNo(e.InUse), tenantOf(e))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdio.out, "%d modules, %s of %s (%s)\n", len(all), bytesOf(total), bytesOf(c.CacheSize), c.CacheDir)
	return err
}

// shortKey shortens a module's digest to what is enough to identify it.
func shortKey(key string) string {
	digest, compression, ok := strings.Cut(key, "-")
	short := digest[:min(16, len(digest))]
	if ok {
		short += "-" + compression
	}
	return short
}

func age(engine, current string) string {
	switch engine {
	case current:
		return "current"
	default:
		return "old"
	}
}

// keptBy names the images that keep an entry.
func keptBy(e cache.Info) string {
	var names []string
	for _, image := range e.Images {
		if image.Content != "" {
			names = append(names, image.Namespace+"/"+image.Name)
		}
	}
	if e.Blob == "" || len(names) == 0 {
		return "the cache"
	}
	return strings.Join(names, ",")
}

// tenantOf names the tenant that an entry was compiled for: containerd's namespace and, for a pod,
// Kubernetes'.
func tenantOf(e cache.Info) string {
	if e.Tenant == "" {
		return "the operator"
	}
	return text.Printable(e.Tenant)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func bytesOf(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1fGiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1fKiB", float64(n)/(1<<10))
}

// cacheWarm is only here for the list of verbs: the shim, which can compile, handles the verb itself.
func cacheWarm(_ context.Context, args []string, stdio stdio) error {
	set := newFlags("cache warm", "[--address SOCKET] [--namespace NAME] [--snapshotter NAME] [--config FILE] IMAGE", stdio)
	if err := parse(set, args, 0, 1); err != nil {
		return err
	}
	return errors.New("cache warm: run it through containerd-shim-wasm-v1, which can compile")
}

// cachePrune removes entries of other engines, or all that are not in use, and prints how much space
// it freed.
func cachePrune(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("cache prune", "[--all] [--config FILE]", stdio)
	configured, engine := cacheFlags(set)
	all := set.Bool("all", false, "remove all that no container uses, not only those of other versions of the shim or other processors")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	if *engine == "" && !*all {
		return errors.New("cache prune: run it through containerd-shim-wasm-v1, which knows its engine, or give --all")
	}
	c, err := config.Load(*configured)
	if err != nil {
		return err
	}
	removed, err := cache.Prune(ctx, c.CacheDir, func(i cache.Info) bool { return *all || i.Engine != *engine }, release)
	return errors.Join(err, tellRemoved(stdio.out, removed))
}

func tellRemoved(w io.Writer, removed []cache.Info) error {
	var freed int64
	for _, e := range removed {
		freed += e.Size
		if _, err := fmt.Fprintf(w, "removed %s %s %s\n", shortKey(e.Digest), text.Printable(e.Name), bytesOf(e.Size)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "freed %s\n", bytesOf(freed))
	return err
}
