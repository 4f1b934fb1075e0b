package executor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// native executes the image's argoexec and says why. It returns, with an exit code, only if that
// fails.
func native(args, env []string, reason error) int {
	log := newLog(command{}, os.Stderr)
	log.Info("the image's argoexec runs this container, not its stand-in", "reason", reason)
	err := becomeNative(args, env)
	terminate(err)
	println(err.Error())
	return exitError
}

// becomeNative executes the image's own argoexec in place of this program, with the same arguments
// and environment. It returns only an error.
func becomeNative(args, env []string) error {
	if len(args) == 0 {
		return errors.New("find the image's argoexec: the command line is empty")
	}
	name, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("find the image's argoexec: %w", err)
	}
	if err := notSelf(name); err != nil {
		return err
	}
	if err := syscall.Exec(name, args, env); err != nil {
		return fmt.Errorf("execute the image's %s: %w", name, err)
	}
	return nil
}

// notSelf keeps this program from executing itself again and again. Without /proc it cannot be found out.
func notSelf(name string) error {
	found, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("find the image's argoexec: %w", err)
	}
	if self, err := os.Stat("/proc/self/exe"); err == nil && os.SameFile(found, self) {
		return fmt.Errorf("find the image's argoexec: %s is its stand-in", name)
	}
	return nil
}
