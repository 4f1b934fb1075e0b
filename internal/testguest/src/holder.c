// Waits for a module in another process's root, takes every lock on it that it can get, and keeps
// them.
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static int module(void) {
	for (;;) {
		glob_t found = {0};
		glob("/proc/[0-9]*/root/module", 0, NULL, &found);
		for (size_t i = 0; i < found.gl_pathc; i++) {
			int fd = open(found.gl_pathv[i], O_RDONLY);
			if (fd >= 0)
				return fd;
		}
		globfree(&found);
		usleep(10000);
	}
}

int main(void) {
	signal(SIGIO, SIG_IGN); // the kernel sends SIGIO when another process opens the leased file
	int fd = module();
	struct flock all = {.l_type = F_WRLCK};
	printf("write lock %d\n", fcntl(fd, F_OFD_SETLK, &all));
	fflush(stdout);
	// The lock needs that no other process has the file locked, the lease that no other process has
	// it open.
	while (flock(fd, LOCK_EX | LOCK_NB) != 0)
		usleep(10000);
	while (fcntl(fd, F_SETLEASE, F_WRLCK) != 0)
		usleep(10000);
	puts("lease");
	fflush(stdout);
	for (;;)
		pause();
}
