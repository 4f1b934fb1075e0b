package worker

/*
#include <signal.h>
#include <unistd.h>

static void end(int number) { _exit(128 + number); }

// The Go runtime requires that every handler runs on the alternative stack. A guest may
// have used up the other stack.
static int end_on(int number) {
	struct sigaction action = {.sa_handler = end, .sa_flags = SA_ONSTACK};
	sigfillset(&action.sa_mask);
	return sigaction(number, &action, 0);
}
*/
import "C"

import (
	"fmt"
	"syscall"
)

// fatal are the signals that users send to end a process and whose default action does so. WASI has no
// signals, so a guest cannot handle them. The worker is usually process 1 of its pid namespace, for which the
// kernel ignores signals without a handler.
var fatal = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGTERM, syscall.SIGVTALRM, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGIO,
	syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTRAP, syscall.SIGSTKFLT,
}

const firstRealtime, lastRealtime = 34, 64

// exitOnSignals makes each signal n end the process at once with 128+n, whatever the guest does. It calls
// sigaction(2) directly: package os/signal passes every signal that it enables back and forth between two
// threads, and all of them together took a third of a short guest's time.
// See RATIONALE.md, "Why do signals become exit codes in the worker?"
func exitOnSignals() error {
	signals := fatal
	for n := firstRealtime; n <= lastRealtime; n++ {
		signals = append(signals, syscall.Signal(n))
	}
	for _, s := range signals {
		if failed, err := C.end_on(C.int(s)); failed != 0 {
			return fmt.Errorf("handle signal %d: %w", int(s), err)
		}
	}
	return nil
}
