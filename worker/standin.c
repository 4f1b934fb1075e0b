// The worker in the role "stand-in" (see control.StandInEnv). It has the process id and
// the rights of a native program, waits for the start message, and then becomes the
// program. It runs before the Go runtime starts, which would only cost time and memory,
// and uses only system calls that nearly every seccomp profile allows. It must agree with
// package control, which has the other end of the socket.
// See RATIONALE.md, "Why do we launch pause containers?"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { control = 3, last_signal = 64 };

// The program must not inherit the signals that the daemon ignores or blocks. This calls the
// kernel directly, because glibc does not let a program set the two signals that it uses itself,
// and make(1), which uses posix_spawn(3), leaves them ignored. All zeros is SIG_DFL; eight is the
// size of the kernel's signal sets.
static void reset_signals(void)
{
	static const long action[8];
	sigset_t none;

	for (int number = 1; number <= last_signal; number++)
		syscall(SYS_rt_sigaction, number, action, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become(const char *program, char **argv, char **envp)
{
	char word;

	if (fcntl(control, F_SETFD, FD_CLOEXEC) < 0 || read(control, &word, 1) != 1 || word != 's')
		_exit(128);
	reset_signals();
	// The directory in which it was started is outside of the container.
	if (chdir("/") == 0)
		execve(program, argv, envp);

	uint8_t reason = errno;
	if (write(control, &reason, 1) != 1)
		_exit(128);
	_exit(127);
}

__attribute__((constructor)) static void stand_in(int argc, char **argv, char **envp)
{
	if (argc < 1 || envp[0] == NULL || strcmp(envp[0], "WASM_WORKER_ROLE=stand-in") != 0)
		return;
	if (envp[1] == NULL)
		_exit(128);
	become(envp[1], argv, envp + 2);
}
