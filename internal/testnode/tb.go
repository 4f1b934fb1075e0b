package testnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
)

// New starts a node for one test, which stops it at its end.
func New(t testing.TB, options Options) *Node {
	t.Helper()
	node, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(); err != nil {
			t.Errorf("stopping containerd %s: %v", node.Release, err)
		}
	})
	node.showLog(t)
	return node
}

// Pool shares one node per version among the tests of a binary: starting one takes about a second.
//
//	var nodes testnode.Pool
//
//	func TestMain(m *testing.M) { nodes.Main(m) }
type Pool struct {
	Options Options // for every node; Version is set by Get

	mu    sync.Mutex
	nodes map[string]*Node
}

// Main runs the tests, stops the nodes and exits.
func (p *Pool) Main(m *testing.M) { Main(m, p) }

// Main runs the tests, stops the nodes of all pools and exits.
func Main(m *testing.M, pools ...*Pool) {
	code := m.Run()
	for _, p := range pools {
		if err := p.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the shared nodes:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func (p *Pool) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var failures []error
	for _, node := range p.nodes {
		failures = append(failures, node.Stop())
	}
	return errors.Join(failures...)
}

// Get returns the node of a version, started by the first test that asks for it. When the test
// fails, what containerd logged during it is shown.
func (p *Pool) Get(t testing.TB, version string) *Node {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	node := p.nodes[version]
	if node == nil {
		options := p.Options
		options.Version = version
		var err error
		if node, err = Start(t.Context(), options); err != nil {
			t.Fatal(err)
		}
		if p.nodes == nil {
			p.nodes = map[string]*Node{}
		}
		p.nodes[version] = node
	}
	node.showLog(t)
	return node
}

// EachVersion runs the test once for each of [Versions], on the shared node.
func (p *Pool) EachVersion(t *testing.T, test func(t *testing.T, node *Node)) {
	t.Helper()
	for _, version := range Versions() {
		t.Run("containerd-"+version, func(t *testing.T) { test(t, p.Get(t, version)) })
	}
}

// showLog prints what containerd and the shims log from now to the end of the test if it fails.
func (n *Node) showLog(t testing.TB) {
	t.Helper()
	var offset int64
	if info, err := os.Stat(n.Log()); err == nil {
		offset = info.Size()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of containerd %s:\n%s", n.Release, n.LogTail(offset, 60))
		}
	})
}

// NoLeaks fails the test at its end for everything that it left behind. The test must register its
// own clean-ups after this call.
func (n *Node) NoLeaks(t testing.TB) {
	t.Helper()
	before, err := n.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, err := n.Leaks(before)
		if err != nil {
			t.Error(err)
		}
		for _, thing := range left {
			t.Errorf("left behind: %s", thing)
		}
	})
}

// Ctr is [Node.RunCtr] for tests, without options.
func (n *Node) Ctr(t testing.TB, args ...string) Result {
	t.Helper()
	return n.CtrWith(t, CtrOpts{}, args...)
}

// CtrWith is [Node.RunCtr] for tests.
func (n *Node) CtrWith(t testing.TB, opts CtrOpts, args ...string) Result {
	t.Helper()
	result, err := n.RunCtr(context.Background(), opts, args...) // also in clean-ups, when t.Context has ended
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// Import is [Node.ImportImage] for tests.
func (n *Node) Import(t testing.TB, tarPath string) {
	t.Helper()
	if err := n.ImportImage(context.Background(), tarPath); err != nil {
		t.Fatal(err)
	}
}

// Client is [Node.Connect] for tests; it is closed at the test's end.
func (n *Node) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
