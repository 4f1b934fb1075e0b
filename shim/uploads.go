package shim

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// uploads are those of a program that have begun and not ended, as it says. Whoever has taken it over can say anything.
type uploads struct {
	mu   sync.Mutex
	open map[control.Upload]int // bytes in an order
	size int                    // all of them
}

// Bounds of the uploads that are remembered: their number, and their bytes in the order to abort them, which has to be a
// message (package control) with the credentials.
const (
	mostUploads = 2000
	maxUploads  = 4 << 20
)

// note notes that an upload has begun or ended. It reports whether it could: of the uploads of an order, within the bounds.
func (all *uploads) note(order control.Serve, u control.Upload) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	ended := u.Ended
	u.Ended = false
	if ended {
		all.size -= all.open[u]
		delete(all.open, u)
		return true
	}
	text, err := json.Marshal(u)
	size := len(text) + 1
	if err != nil || !isOf(order, u) || len(all.open) >= mostUploads || all.size+size > maxUploads {
		return false
	}
	if all.open == nil {
		all.open = map[control.Upload]int{}
	}
	all.size += size - all.open[u]
	all.open[u] = size
	return true
}

// isOf reports whether an upload can be of an output of the order.
func isOf(order control.Serve, u control.Upload) bool {
	for _, m := range order.Mounts {
		for _, a := range m.Artifacts {
			if a.Name == u.Artifact && a.Output {
				return a.Stores(u.Bucket, u.Key)
			}
		}
	}
	return false
}

// left are the uploads that have not ended.
func (all *uploads) left() []control.Upload {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Collect(maps.Keys(all.open))
}

// listen receives the program's reports until its answer.
func (r *requested) listen(p *process) {
	_, w, _ := p.look()
	forgot := false
	for reports := w.control.Reports(); ; {
		report, err := reports.Next()
		if err != nil || report.Upload == nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the program that serves the artifacts has ended")
			}
			r.finished <- errors.Join(err, report.Err())
			return
		}
		if !r.uploads.note(r.order, *report.Upload) && !forgot {
			forgot = true
			p.container.daemon.log.WithField("exec", p.id).Warn("remember what the program that serves artifacts uploads: there is too much of it, or it is none of the container's. " +
				"If the program is killed, parts may stay in the store, invisible, until a rule of the bucket removes them")
		}
	}
}
