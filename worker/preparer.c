// What the worker does first in the role "compile" (see package control), before the Go
// runtime has started threads: unshare(2) takes a user namespace for a process of one
// thread only.

#define _GNU_SOURCE
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// A user namespace of its own, in which it is nobody and may do nothing: what the kernel
// keeps by user and namespace, keys and counts, is not shared with others of its user
// id. Many nodes forbid such namespaces, and then it goes on without; what it must not do,
// no namespace need forbid (package confine).
// See RATIONALE.md, "Why do all preparers have one user id?"
static void leave_users(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (unshare(CLONE_NEWUSER) < 0)
		return;
	// The process that makes one has every capability in it.
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
	// Other processes of its user id, on the host, may not look into it (ptrace(2)).
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		_exit(126);
	leave_users();
}
