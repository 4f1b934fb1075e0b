package module

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// turnsDir is the folder for the locks of jobs that compile, below the folder for sockets. No container sees
// it.
const turnsDir = "compile"

// turn is the right to compile: first the pod's turn, and then one of the node's, of which a tenant gets at
// most a quarter. A turn may last as long as a compilation, and turns have no order. A killed daemon returns
// its turn.
type turn struct {
	loader   *Loader
	payer    Account
	settings config.Config
	locks    []*filelock.Lock
}

// takeTurn waits for the pod's turn to copy a module and to compile it.
func (l *Loader) takeTurn(ctx context.Context, payer Account, s config.Config) (*turn, error) {
	return l.takePodTurn(ctx, payer, s, "compile")
}

// takeHashTurn waits for the pod's turn to hash a module. It does not wait for compilations.
func (l *Loader) takeHashTurn(ctx context.Context, payer Account, s config.Config) (*turn, error) {
	return l.takePodTurn(ctx, payer, s, "hash")
}

func (l *Loader) takePodTurn(ctx context.Context, payer Account, s config.Config, what string) (*turn, error) {
	if err := os.MkdirAll(filepath.Join(l.StateDir, turnsDir), 0o700); err != nil {
		return nil, fmt.Errorf("take turns at compiling: %w", err)
	}
	t := &turn{loader: l, payer: payer, settings: s}
	if err := t.take(ctx, payer.podQueue(what)); err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

// takeNodeTurn waits for a turn of the node, too. The holder of such a turn waits for nothing else but the
// entry's lock: no volume, and no other turn.
func (t *turn) takeNodeTurn(ctx context.Context) error {
	if err := t.take(ctx, t.payer.nodeQueues(t.settings)); err != nil {
		return err
	}
	if err := removeNoted(t.last()); err != nil {
		t.loader.Log.WithError(err).Warn("remove the preparer of a dead shim: it may go on")
	}
	return nil
}

// take waits in each queue, in all at most as long as a compilation may take.
func (t *turn) take(ctx context.Context, queues []queue) error {
	waiting, cancel := context.WithTimeout(ctx, t.settings.CompileTimeout)
	defer cancel()
	for _, queue := range queues {
		lock, err := filelock.Wait(waiting, queue.locks(filepath.Join(t.loader.StateDir, turnsDir))...)
		if err != nil && ctx.Err() == nil && waiting.Err() != nil {
			return fmt.Errorf("waited %s for a turn, because %s: try again, compile the module ahead of time (containerd-shim-wasm-v1 cache warm) or raise max_compilations in %s",
				t.settings.CompileTimeout, queue.busy, t.settings.Source)
		}
		if err != nil {
			return fmt.Errorf("wait for a turn: %w", err)
		}
		t.locks = append(t.locks, lock)
	}
	return nil
}

// queue is a line in which jobs wait for a turn; turns is how many have one at a time.
type queue struct {
	name, busy string
	turns      int
}

// podQueue returns a pod's queue for work that it does once at a time. The operator waits in none.
func (a Account) podQueue(what string) []queue {
	if a.Pod == "" {
		return nil
	}
	return []queue{{what + "-" + shortHash(a.Pod), fmt.Sprintf("its pod does %s another module", what), 1}}
}

// nodeQueues returns the queues of a tenant and of the node.
func (a Account) nodeQueues(s config.Config) []queue {
	node := queue{"node", "others compile, as many as max_compilations allows", s.MaxCompilations}
	if a.Tenant == "" {
		return []queue{node}
	}
	return []queue{{"tenant-" + shortHash(a.Tenant), "its namespace compiles as much as it may at once", max(1, s.MaxCompilations/4)}, node}
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// locks returns the paths of a queue's locks.
func (q queue) locks(dir string) []string {
	paths := make([]string, q.turns)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprintf("%s-%d", q.name, i))
	}
	return paths
}

// last returns the lock of the node's queue.
func (t *turn) last() *filelock.Lock { return t.locks[len(t.locks)-1] }

// note records the place of the preparer for the next holder of the turn, or for a cleanup if this daemon
// dies.
func (t *turn) note(p location) error {
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the preparer's place: %w", err)
	}
	return t.last().SetNote(data)
}

func (t *turn) end() {
	for _, lock := range t.locks {
		lock.Release()
	}
}

// RemoveDeadPreparers ends the preparers whose daemon has died and removes their cgroups: their result is not
// needed, and their time limit is not enforced any more.
func RemoveDeadPreparers(stateDir string) error {
	paths, err := filepath.Glob(filepath.Join(stateDir, turnsDir, "node-*"))
	if err != nil {
		return fmt.Errorf("look for preparers: %w", err)
	}
	var failures []error
	for _, path := range paths {
		lock, err := filelock.Try(path)
		if errors.Is(err, filelock.ErrBusy) {
			continue // its daemon is alive
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		failures = append(failures, removeNoted(lock))
		lock.Release()
	}
	return errors.Join(failures...)
}

// removeNoted removes the preparer that a dead holder has left and that the lock's note names.
func removeNoted(lock *filelock.Lock) error {
	note, err := lock.Note()
	if err != nil || len(note) == 0 {
		return err
	}
	var p location
	if err := json.Unmarshal(note, &p); err != nil {
		return lock.SetNote(nil) // its holder died while it wrote
	}
	cg, err := cgroup.Load(preparerName, &specs.Spec{Linux: &specs.Linux{CgroupsPath: p.CgroupsPath}}, p.Systemd)
	if err == nil {
		err = cg.Destroy()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the preparer in %s: %w", p.CgroupsPath, err)
	}
	return lock.SetNote(nil)
}
