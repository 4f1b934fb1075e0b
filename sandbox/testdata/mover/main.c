/* mover is native code in place of a worker that makes new namespaces for itself. Its argument is the flags of
 * unshare(2). With CLONE_NEWUSER it needs no privilege. Only a program with one thread may use that flag, so this
 * is C: a Go program has more threads. mover prints 0 or errno, and then waits for the end of its input. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
	int flags = strtol(argv[argc - 1], NULL, 0);
	int failed = unshare(flags) ? errno : 0;

	/* The kernel uses the lowest free number: from the second time on, it may be that of a namespace left before. */
	for (int i = 0; i < 10 && !failed; i++)
		failed = unshare(flags & ~(CLONE_NEWUSER | CLONE_NEWPID)) ? errno : 0;
	printf("%d\n", failed);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
