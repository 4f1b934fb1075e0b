package incluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// askAgain is how often the API server is asked whether the DaemonSet is gone.
const askAgain = 3

// leave ends the pod. If the DaemonSet is gone, it removes the installation. If the pod ends
// for another reason, an upgrade or the node's shutdown, the installation stays.
func (i *Installer) leave(ctx context.Context) error {
	i.readiness.set("this pod ends")
	gone, why := i.daemonSetGone(ctx)
	if !gone {
		i.log.Printf("%s: the installation stays", why)
		return nil
	}
	i.log.Printf("%s: removing the installation", why)
	if err := i.remove(ctx); err != nil {
		return fmt.Errorf("removing failed: %w", err)
	}
	i.log.Print("removed")
	return nil
}

// daemonSetGone reports whether the DaemonSet that this pod came from is being removed, and
// how that shows. A service account that has lost its rights counts as a removal of everything at
// once, because we do not choose the order of that. An API server that does not answer counts as
// none: nodes lose it in accidents.
func (i *Installer) daemonSetGone(ctx context.Context) (gone bool, why string) {
	name := i.options.DaemonSet
	for attempt := 0; ; attempt++ {
		object, err := i.cluster.getDaemonSet(ctx, name)
		switch code(err) {
		case http.StatusNotFound:
			return true, fmt.Sprintf("DaemonSet %s is gone", name)
		case http.StatusUnauthorized, http.StatusForbidden:
			return true, fmt.Sprintf("the service account has been removed (%v)", err)
		}
		switch {
		case err != nil && attempt+1 == askAgain:
			return false, fmt.Sprintf("cannot tell whether DaemonSet %s is gone (%v)", name, err)
		case err != nil:
			sleep(ctx, i.options.Interval)
		case i.daemonSet != "" && object.Metadata.UID != i.daemonSet:
			return false, fmt.Sprintf("DaemonSet %s was replaced by a new one", name)
		case object.Metadata.DeletionTimestamp != nil:
			return true, fmt.Sprintf("DaemonSet %s is being deleted", name)
		default:
			return false, fmt.Sprintf("DaemonSet %s is still there", name)
		}
	}
}

// remove undoes the installation, the label first: no new Wasm pods must arrive.
func (i *Installer) remove(ctx context.Context) error {
	i.unlabel(ctx)
	if err := i.drain(ctx); err != nil {
		return err
	}
	o := i.options.Install
	// Only an entry that is added needs the version, to know where to go.
	_, o.ContainerdVersion, _ = i.cri.version(ctx)
	report, err := install.Uninstall(ctx, o)
	i.tell(report)
	if err != nil {
		return err
	}
	if err := i.deactivate(ctx, report.Restart != ""); err != nil {
		return err
	}
	return i.clear()
}

// unlabel removes the label. If the rights for that are gone, the removal goes on without.
func (i *Installer) unlabel(ctx context.Context) {
	changed, err := i.cluster.setLabel(ctx, i.options.Node, false)
	switch {
	case err != nil:
		i.log.Printf("cannot remove the label: %v; remove it with: kubectl label node %s %s-", err, i.options.Node, Label)
	case changed:
		i.log.Printf("removed label %s from node %s", Label, i.options.Node)
	}
}

// drain waits for the Wasm pods on the node to end: containerd needs the shim to clean up
// after them.
func (i *Installer) drain(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, i.options.Drain)
	defer cancel()
	told := false
	for {
		pods, err := i.cri.wasmPods(ctx) // has a timeout of its own
		if err == nil && len(pods) == 0 {
			return nil
		}
		if len(pods) > 0 && !told {
			told = true
			i.log.Printf("waiting for Wasm pods to end: %s", strings.Join(pods, ", "))
		}
		if sleep(patience, pollInterval) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot tell which Wasm pods run: %w", err)
		}
		return fmt.Errorf("pods still run Wasm after %v (%s): the shim stays for them; when they have ended, "+
			"run %q and restart containerd on this node", i.options.Drain, strings.Join(pods, ", "), install.BinaryName+" uninstall")
	}
}

// deactivate makes the running containerd forget the runtime.
func (i *Installer) deactivate(ctx context.Context, needed bool) error {
	if !needed {
		return nil
	}
	if i.options.Restart.none() {
		i.log.Print("containerd still offers the runtime: restart containerd on this node")
		return nil
	}
	if err := i.restart(ctx); err != nil {
		return err
	}
	return i.await(ctx, func(configuration []byte) error {
		if install.CheckRunning(configuration, i.options.Install.NodeConfig) == nil {
			return errors.New("containerd still offers the runtime")
		}
		return nil
	})
}

// clear empties the shim's own folder: code and the worker's binary. The
// folder itself is a mount in the pod.
func (i *Installer) clear() error {
	root, err := os.OpenRoot(i.options.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := root.RemoveAll(entry.Name()); err != nil {
			return err
		}
	}
	if len(entries) > 0 {
		i.log.Printf("removed what was in %s", i.options.State)
	}
	return nil
}
