package control

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// untilEnd records whether the socket was read until the stand-in closed it.
type untilEnd struct {
	io.Reader
	ended bool
}

func (u *untilEnd) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	u.ended = u.ended || errors.Is(err, io.EOF)
	return n, err
}

// AwaitExec returns only after a stand-in that could not become its program has exited: an earlier signal
// would replace its exit code.
func TestAwaitExecWaitsForTheEndOfAFailedStandIn(t *testing.T) {
	socket := &untilEnd{Reader: strings.NewReader(string(rune(syscall.ENOEXEC)))}
	if err := awaitExec(socket); !errors.Is(err, syscall.ENOEXEC) || !socket.ended {
		t.Errorf("got %v, read to its end: %t", err, socket.ended)
	}
	if err := awaitExec(strings.NewReader("")); err != nil {
		t.Errorf("a stand-in that has become its program: %v", err)
	}
}
