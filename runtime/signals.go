package runtime

import (
	"os"
	"os/signal"
	"syscall"
)

// fatal are the signals whose default action ends a process and that people
// send to ask for it. WASI has no signals, so a guest cannot handle them; and
// the worker is usually process 1 of its pid namespace, for which the kernel
// ignores what has no handler.
var fatal = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGTERM, syscall.SIGVTALRM, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGIO,
	syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTRAP, syscall.SIGSTKFLT,
}

const firstRealtime, lastRealtime = 34, 64

// exitOnSignals ends the process at once with 128+n, whatever the guest does.
func exitOnSignals() {
	received := make(chan os.Signal, 1)
	signals := fatal
	for n := firstRealtime; n <= lastRealtime; n++ {
		signals = append(signals, syscall.Signal(n))
	}
	signal.Notify(received, signals...)
	go func() {
		if n, ok := (<-received).(syscall.Signal); ok {
			os.Exit(128 + int(n))
		}
	}()
}
