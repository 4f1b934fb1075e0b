package sandbox

import (
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// longWay makes an image with the highest number of links that a path may have, each with the longest possible
// target. "/link1" leads through all of them, which is some 32,000 names.
func longWay(t *testing.T) (root int) {
	t.Helper()
	links := map[string]string{}
	for i := 1; i <= maxLinks; i++ {
		next := fmt.Sprintf("link%d", i+1)
		links[fmt.Sprintf("link%d", i)] = "/" + strings.Repeat("x/../", (unix.PathMax-16)/5) + next
	}
	_, root = imageOf(t, links)
	return root
}

// A search of the folders of $PATH takes at most maxSteps steps, even if an image makes the paths very long.
func TestStepsOfALookUp(t *testing.T) {
	passed := 0
	w := newWalk(longWay(t), func(string) { passed++ })
	for i := range 1000 {
		if _, err := w.expand(fmt.Sprintf("/link1/%d/app", i)); err != unix.ELOOP {
			t.Fatalf("path %d: %v", i, err)
		}
	}
	if !w.isOver() || passed > maxSteps {
		t.Errorf("%d places looked at, at most %d are", passed, maxSteps)
	}
	if _, err := w.expand("/app"); err != unix.ELOOP {
		t.Errorf("a path after that: %v", err)
	}
}

func TestStepsOfAMountPoint(t *testing.T) {
	if _, _, err := mountpoint(longWay(t), "/link1", true); err == nil {
		t.Error("a mount point is found behind a way without end")
	}
}

// If maxSteps steps are not enough for an answer, MountsDecide returns true: an exec sees the mounts too.
func TestMountsDecideInTheEnd(t *testing.T) {
	s := &Sandbox{thread: newThread(), root: longWay(t), joined: true}
	defer s.thread.end()
	if !s.MountsDecide(t.Context(), &specs.Spec{}, []string{"/link1/app", "/link1/other"}) {
		t.Error("a way without end: the mounts have no say")
	}
	if s.MountsDecide(t.Context(), &specs.Spec{}, []string{"/bin/app", "/usr/bin/app"}) {
		t.Error("no mounts, and they have a say")
	}
	mounts := []specs.Mount{{Type: "tmpfs", Destination: "/link1"}}
	if !s.MountsDecide(t.Context(), &specs.Spec{Mounts: mounts}, []string{"/bin/app"}) {
		t.Error("a mount at the end of such a way has no say")
	}
}
