package object

import "github.com/wasmshim/containerd-shim-wasm/artifact/progress"

// Stats counts what was done. All are sums since the start.
type Stats struct {
	Requests int64 // to the store, with repeated ones
	Moved    int64 // bytes that came from the store
	Served   int64 // bytes that were read
	Hits     int64 // reads that found their blocks in the cache
	Misses   int64
	Retries  int64
}

// Plus returns the sums of both.
func (s Stats) Plus(t Stats) Stats {
	return Stats{s.Requests + t.Requests, s.Moved + t.Moved, s.Served + t.Served, s.Hits + t.Hits, s.Misses + t.Misses, s.Retries + t.Retries}
}

// Fields are the sums for a line of a log.
func (s Stats) Fields() []any {
	return []any{"bytes", s.Moved, "requests", s.Requests, "retries", s.Retries, "read", s.Served, "hits", s.Hits, "misses", s.Misses}
}

// Of returns what is said of an artifact with the sums in it.
func (s Stats) Of(a progress.Artifact) progress.Artifact {
	a.Moved, a.Used, a.Requests, a.Retries, a.Hits, a.Misses = s.Moved, s.Served, s.Requests, s.Retries, s.Hits, s.Misses
	return a
}
