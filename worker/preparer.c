// The first steps of a worker in the role "compile" (see package control). They come before
// the Go runtime starts threads: unshare(2) creates a user namespace only for a process with
// a single thread.

#define _GNU_SOURCE
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// Creates a user namespace, in which the process is nobody and has no rights. The kernel keeps
// keys and counts by user and user namespace, so they are then not shared with other processes
// of the same user id. Many nodes forbid such namespaces. The process then runs without one:
// package confine forbids what it must not do in either case.
// See RATIONALE.md, "Why do all preparers have one user id?"
static void leave_users(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (unshare(CLONE_NEWUSER) < 0)
		return;
	// The process that creates a user namespace has every capability in it.
	for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (syscall(SYS_capset, &header, none) < 0)
		_exit(126);
}

__attribute__((constructor)) static void prepare(int argc, char **argv, char **envp)
{
	if (argc < 1 || envp[0] == NULL || strcmp(envp[0], "WASM_WORKER_ROLE=compile") != 0)
		return;
	(void)argv;
	// Other processes of the same user id on the host may not trace it (ptrace(2)).
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		_exit(126);
	leave_users();
}
