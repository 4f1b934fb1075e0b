// Paths. The kernel resolves them, with openat2(2): nothing here follows a link or a "..".

#include "guest.h"

#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

// open_below opens a path beneath a directory of this process. No path leads through a magic link.
static int open_below(int dir, const char *path, uint64_t flags, mode_t mode, uint64_t resolve) {
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve | RESOLVE_NO_MAGICLINKS };
	// EAGAIN: because of a concurrent rename, the kernel could not decide whether ".." leads out.
	for (int tries = 0; tries < 100; tries++) {
		int fd;
		do
			fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
		while (fd < 0 && errno == EINTR);
		if (fd >= 0 || errno != EAGAIN)
			return fd;
	}
	return -1;
}

static int open_root(const char *path) {
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC };
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
	if (fd >= 0 || errno != EACCES)
		return fd;
	// It may be searched and not listed.
	how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

// A seccomp profile may deny the calls that keep a guest in its root. It is found out here, before
// the guest starts.
int root_open(const char *path) {
	struct statfs s;
	int fd = open_root(path);
	if (fd < 0 || fstatfs(fd, &s) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

// climbs reports whether a path has more ".." than names at some point.
static bool climbs(const char *path) {
	int depth = 0;
	while (*path != 0) {
		size_t length = strcspn(path, "/");
		if (length == 2 && path[0] == '.' && path[1] == '.') {
			if (--depth < 0)
				return true;
		} else if (length > 1 || (length == 1 && path[0] != '.')) {
			depth++;
		}
		path += length;
		path += strspn(path, "/");
	}
	return false;
}

bool path_in(const struct descriptor *d, const char *path, char out[PATH_MAX]) {
	size_t length = strlen(path), before = 0;
	if (!d->preopen) {
		if (d->path == NULL)
			return false;
		before = strlen(d->path) + 1;
	}
	if (before + length >= PATH_MAX)
		return false;
	if (before > 0) {
		memcpy(out, d->path, before - 1);
		out[before - 1] = '/';
	}
	memcpy(out + before, path, length + 1);
	return true;
}

// still_there reports whether a directory is where it was when it was opened.
static bool still_there(struct guest *g, const struct descriptor *d) {
	struct stat now, then;
	int fd = open_below(g->roots[d->root].fd, d->path, O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT);
	if (fd < 0)
		return false;
	bool same = fstat_of(fd, &now) == 0 && fstat_of(d->fd, &then) == 0 && now.st_dev == then.st_dev && now.st_ino == then.st_ino;
	close(fd);
	return same;
}

// A path that WASI's rules keep beneath the directory, by its own "..", is an error if it leads
// out. A link may lead anywhere in the root, as in a native container.
int open_in(struct guest *g, const struct descriptor *d, const char *path, uint64_t flags, mode_t mode) {
	if (path[0] == '/') {
		errno = EPERM;
		return -1;
	}
	bool up = climbs(path);
	if (d->preopen && !up)
		return open_below(d->fd, path, flags, mode, RESOLVE_IN_ROOT);
	int fd = open_below(d->fd, path, flags, mode, RESOLVE_BENEATH);
	if (fd >= 0 || errno != EXDEV)
		return fd;
	if (up || !path_in(d, path, g->whole) || !still_there(g, d)) {
		errno = EPERM;
		return -1;
	}
	return open_below(g->roots[d->root].fd, g->whole, flags, mode, RESOLVE_IN_ROOT);
}

bool is_entry(const char *path) {
	return path[0] != 0 && strchr(path, '/') == NULL && strcmp(path, ".") != 0 && strcmp(path, "..") != 0;
}

bool find(struct guest *g, const struct descriptor *d, char *path, struct place *p) {
	size_t end = strlen(path);
	while (end > 0 && path[end - 1] == '/')
		end--;
	while (end > 0 && path[end - 1] != '/')
		end--;
	*p = (struct place){ .dir = d->fd, .name = path + end };
	if (end == 0 && path[0] != '/')
		return true;
	if (path[0] == '/') {
		errno = EPERM;
		return false;
	}
	path[end - 1] = 0;
	p->dir = open_in(g, d, path, O_PATH | O_DIRECTORY, 0);
	p->owned = p->dir >= 0;
	return p->owned;
}

int exists(const struct place *p) {
	int fd = open_below(p->dir, p->name, O_PATH, 0, RESOLVE_BENEATH);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

void leave(const struct place *p) {
	int saved = errno;
	if (p->owned)
		close(p->dir);
	errno = saved;
}
