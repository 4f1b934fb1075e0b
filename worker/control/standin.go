package control

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// RoleStandIn is the role of a worker that waits for SendStart in the place of a
// native program and then becomes it (execve(2)). It takes no order and reports
// nothing: all it must know is in its environment, see StandInEnv. Its other half
// is standin.c of package worker.
const RoleStandIn = "stand-in"

// StandInEnv returns the environment of a stand-in for the file program, which is
// to run in "/" with environment env. Its arguments are the program's own.
func StandInEnv(program string, env []string) []string {
	return append([]string{RoleEnv + "=" + RoleStandIn, program}, env...)
}

// AwaitExec waits, after SendStart, until a stand-in has become its program, which
// closes its end of the socket. The error is a syscall.Errno when it could not. The
// stand-in is then ending with an exit code of its own: AwaitExec waits for that, so
// that no signal of the caller's takes its place.
func AwaitExec(r io.Reader) error {
	var reason [1]byte
	_, err := io.ReadFull(r, reason[:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("await the program: %w", err)
	}
	_, _ = r.Read(make([]byte, 1)) // until its end, which closes the socket, or the caller's deadline
	return syscall.Errno(reason[0])
}
