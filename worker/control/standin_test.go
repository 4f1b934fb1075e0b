package control

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// untilEnd notes whether a stand-in's end of the socket was read to its end.
type untilEnd struct {
	io.Reader
	ended bool
}

func (u *untilEnd) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	u.ended = u.ended || errors.Is(err, io.EOF)
	return n, err
}

// A stand-in that could not become its program has ended before AwaitExec says so: a signal sent
// before that would take the place of its exit code.
func TestAwaitExecWaitsForTheEndOfAFailedStandIn(t *testing.T) {
	socket := &untilEnd{Reader: strings.NewReader(string(rune(syscall.ENOEXEC)))}
	if err := awaitExec(socket); !errors.Is(err, syscall.ENOEXEC) || !socket.ended {
		t.Errorf("got %v, read to its end: %t", err, socket.ended)
	}
	if err := awaitExec(strings.NewReader("")); err != nil {
		t.Errorf("a stand-in that has become its program: %v", err)
	}
}
