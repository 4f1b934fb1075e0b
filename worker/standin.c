// The worker in the role "stand-in" (see control.StandInEnv): it holds the place,
// the process id and the rights of a native program until the word to start, and
// then becomes it. It does so before the Go runtime starts, which would only cost
// time and memory, and with the system calls that nearly every seccomp profile
// allows. It must agree with package control, which is its other side.
// See RATIONALE.md, "Why do we launch pause containers?"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { control = 3, last_signal = 64 };

// The program must not inherit the signals that the daemon ignores or blocks. The call is the kernel's
// own: glibc keeps two signals to itself, which make(1), by posix_spawn(3), leaves
// ignored. All zeros is SIG_DFL; eight is the size of the kernel's signal sets.
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
	// The directory it was started in lies outside of the container.
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
