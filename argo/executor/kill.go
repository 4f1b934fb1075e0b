package executor

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// kill sends a signal to a process, both by number.
func kill(signal, pid string) error {
	s, err := strconv.Atoi(signal)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	process, err := os.FindProcess(id)
	if err != nil {
		return err
	}
	fmt.Printf("killing %d with %v\n", id, syscall.Signal(s))
	return process.Signal(syscall.Signal(s))
}
