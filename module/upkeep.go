package module

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module/cache"
)

// trimLimit bounds the wait for another shim that is cleaning up.
const trimLimit = time.Minute

// trim keeps the cache within its limit. Nothing depends on its success, and no container waits for it.
func (l *Loader) trim(s config.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), trimLimit)
	defer cancel()
	removed, _, err := cache.Trim(ctx, s.CacheDir, s.CacheSize, nil)
	if err != nil {
		l.Log.WithError(err).Warn("trim the compile cache: it may be larger than cache_size")
	}
	if len(removed) > 0 {
		l.Log.WithField("removed", len(removed)).Info("removed compiled modules: the compile cache was full")
	}
}

// sweep removes the files that killed shims have left, at a daemon's first container.
func (l *Loader) sweep(cacheDir string) {
	err := errors.Join(cache.Sweep(cacheDir), cache.SweepUncached(filepath.Join(l.StateDir, uncachedDir)))
	if err != nil && !cache.Unusable(err) {
		l.Log.WithError(err).Warn("remove what dead shims left in the compile cache: it takes room until the next try")
	}
}
