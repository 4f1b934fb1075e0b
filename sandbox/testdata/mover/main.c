/* mover is native code in a worker's place that makes namespaces for itself. Its argument has the flags of
 * unshare(2). It needs no privilege if they have CLONE_NEWUSER, which only a program with one thread may ask
 * for: one of Go has more. It says 0 or why not, and then waits for the end of its input. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
	int flags = strtol(argv[argc - 1], NULL, 0);
	int failed = unshare(flags) ? errno : 0;

	/* The kernel gives the lowest number that is free: the second time perhaps one that was just left. */
	for (int i = 0; i < 10 && !failed; i++)
		failed = unshare(flags & ~(CLONE_NEWUSER | CLONE_NEWPID)) ? errno : 0;
	printf("%d\n", failed);
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
