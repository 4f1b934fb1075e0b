// What files and descriptors are: types, rights, flags, sizes and times.

#include "calls.h"

#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "memory.h"

// glibc's fstat resolves an empty path, which takes longer.
int fstat_of(int fd, struct stat *s) { return (int)syscall(SYS_fstat, fd, s); }

uint8_t filetype_of(mode_t mode) {
	switch (mode & S_IFMT) {
	case S_IFBLK: return TYPE_BLOCK;
	case S_IFCHR: return TYPE_CHARACTER;
	case S_IFDIR: return TYPE_DIRECTORY;
	case S_IFREG: return TYPE_REGULAR;
	case S_IFLNK: return TYPE_LINK;
	case S_IFSOCK: return TYPE_SOCKET;
	default: return TYPE_UNKNOWN; // WASI knows no FIFOs
	}
}

static uint64_t nanoseconds(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec; }

static int put_status(struct guest *g, const struct stat *s, uint32_t at) {
	uint8_t *out = span(g, at, 64);
	if (out == NULL)
		return OUTSIDE;
	memset(out, 0, 64);
	store64(out, s->st_dev);
	store64(out + 8, s->st_ino);
	out[16] = filetype_of(s->st_mode);
	store64(out + 24, s->st_nlink);
	store64(out + 32, (uint64_t)s->st_size);
	store64(out + 40, nanoseconds(s->st_atim));
	store64(out + 48, nanoseconds(s->st_mtim));
	store64(out + 56, nanoseconds(s->st_ctim));
	return 0;
}

int call_fd_filestat_get(struct guest *g, const wasmtime_val_raw_t *a) {
	struct stat s;
	struct descriptor *d = numbered(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	if (fstat_of(d->fd, &s) != 0)
		return failure();
	return put_status(g, &s, u32(&a[1]));
}

static int stat_at(struct guest *g, const struct descriptor *d, const char *path, bool follow, struct stat *s) {
	if (is_entry(path)) {
		if (fstatat(d->fd, path, s, AT_SYMLINK_NOFOLLOW) != 0)
			return -1;
		if (!follow || !S_ISLNK(s->st_mode))
			return 0;
	}
	int fd = open_in(g, d, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	if (fd < 0)
		return -1;
	int result = fstat_of(fd, s);
	close(fd);
	return result;
}

int call_path_filestat_get(struct guest *g, const wasmtime_val_raw_t *a) {
	struct stat s;
	int error = 0;
	struct descriptor *d = directory(g, u32(&a[0]), &error);
	if (d != NULL)
		error = path_from(g, u32(&a[2]), u32(&a[3]), g->path);
	if (error != 0)
		return error;
	if (u32(&a[1]) > SYMLINK_FOLLOW)
		return WASI_INVAL;
	bool follow = u32(&a[1]) & SYMLINK_FOLLOW;
	if (stat_at(g, d, g->path, follow, &s) == 0)
		return put_status(g, &s, u32(&a[4]));
	error = failure();
	int64_t number = follow && (errno == ENOENT || errno == ELOOP) ? stream_at(g, d, g->path, false) : -1;
	struct descriptor *stream = number < 0 ? NULL : described(g, (uint32_t)number);
	if (stream == NULL || fstat_of(stream->fd, &s) != 0)
		return error;
	return put_status(g, &s, u32(&a[4]));
}

// times_from makes the argument of utimensat(2). It is false if the guest asks for two times in one.
static bool times_from(uint64_t access, uint64_t change, uint32_t flags, struct timespec out[2]) {
	const uint64_t given[2] = { access, change };
	for (int i = 0; i < 2; i++, flags >>= 2) {
		if ((flags & 3) == 3)
			return false;
		if (flags & TIME_ACCESS)
			out[i] = (struct timespec){ .tv_sec = (time_t)(given[i] / 1000000000), .tv_nsec = (long)(given[i] % 1000000000) };
		else
			out[i] = (struct timespec){ .tv_nsec = flags & TIME_ACCESS_NOW ? UTIME_NOW : UTIME_OMIT };
	}
	return true;
}

int call_fd_filestat_set_times(struct guest *g, const wasmtime_val_raw_t *a) {
	struct timespec times[2];
	if (u32(&a[3]) > 15 || !times_from(u64(&a[1]), u64(&a[2]), u32(&a[3]), times))
		return WASI_INVAL;
	struct descriptor *d = described(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	return outcome(futimens(d->fd, times));
}

static int set_times(struct guest *g, const struct descriptor *d, const char *path, bool follow, const struct timespec times[2]) {
	if (!follow && is_entry(path))
		return utimensat(d->fd, path, times, AT_SYMLINK_NOFOLLOW);
	int fd = open_in(g, d, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	if (fd < 0)
		return -1;
	int result = utimensat(fd, "", times, AT_EMPTY_PATH);
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

int call_path_filestat_set_times(struct guest *g, const wasmtime_val_raw_t *a) {
	struct timespec times[2];
	int error = 0;
	if (u32(&a[1]) > SYMLINK_FOLLOW || u32(&a[6]) > 15 || !times_from(u64(&a[4]), u64(&a[5]), u32(&a[6]), times))
		return WASI_INVAL;
	struct descriptor *d = directory(g, u32(&a[0]), &error);
	if (d != NULL)
		error = path_from(g, u32(&a[2]), u32(&a[3]), g->path);
	if (error != 0)
		return error;
	if (u32(&a[6]) == 0)
		return 0; // as utimensat(2), which does not even look at the path
	return outcome(set_times(g, d, g->path, u32(&a[1]) & SYMLINK_FOLLOW, times));
}

int call_fd_filestat_set_size(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = described(g, u32(&a[0]));
	if (d == NULL || d->kind == DIRECTORY)
		return WASI_BADF;
	return outcome(ftruncate(d->fd, (off_t)u64(&a[1])));
}

// Rights of a root: many libraries expect these.
enum {
	RIGHTS_OF_ROOT = MAY_CREATE_DIRECTORY | MAY_CREATE_FILE | MAY_LINK_SOURCE | MAY_LINK_TARGET | MAY_OPEN | MAY_READDIR |
		MAY_READLINK | MAY_RENAME_SOURCE | MAY_RENAME_TARGET | MAY_SYMLINK | MAY_REMOVE_DIRECTORY | MAY_UNLINK |
		MAY_STAT_PATH | MAY_SET_TIMES_OF_PATH | MAY_STAT | MAY_SET_TIMES,
	RIGHTS_IN_ROOT = RIGHTS_OF_ROOT | MAY_DATASYNC | MAY_READ | MAY_SEEK | MAY_SET_FLAGS | MAY_SYNC | MAY_TELL | MAY_WRITE |
		MAY_ADVISE | MAY_ALLOCATE | MAY_STAT | MAY_SET_SIZE | MAY_SET_TIMES | MAY_POLL,
};

static bool is_terminal(int fd) {
	struct termios t;
	return tcgetattr(fd, &t) == 0;
}

// rights_of returns what may be done with an open file. A library takes a character device that
// cannot be sought for a terminal.
static uint32_t rights_of(mode_t mode, int flags, bool terminal) {
	uint32_t rights = ALL_RIGHTS;
	if (S_ISDIR(mode))
		rights &= ~(uint32_t)(MAY_SEEK | MAY_SET_SIZE | MAY_SET_SIZE_OF_PATH);
	if ((flags & O_ACCMODE) == O_WRONLY)
		rights &= ~(uint32_t)(MAY_READ | MAY_READDIR);
	if ((flags & O_ACCMODE) == O_RDONLY)
		rights &= ~(uint32_t)MAY_WRITE;
	if (terminal)
		rights &= ~(uint32_t)(MAY_SEEK | MAY_TELL);
	return rights;
}

static uint16_t flags_of(int flags) {
	uint16_t out = 0;
	if (flags & O_APPEND)
		out |= FLAG_APPEND;
	if (flags & O_NONBLOCK)
		out |= FLAG_NONBLOCK;
	if ((flags & O_SYNC) == O_SYNC)
		out |= FLAG_SYNC | FLAG_RSYNC;
	else if (flags & O_DSYNC)
		out |= FLAG_DSYNC;
	return out;
}

int call_fd_fdstat_get(struct guest *g, const wasmtime_val_raw_t *a) {
	struct stat s;
	struct descriptor *d = described(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	uint8_t *out = span(g, u32(&a[1]), 24);
	if (out == NULL)
		return OUTSIDE;
	int flags = fcntl(d->fd, F_GETFL);
	if (flags < 0 || fstat_of(d->fd, &s) != 0)
		return failure();
	bool terminal = S_ISCHR(s.st_mode) && is_terminal(d->fd);
	uint8_t type = filetype_of(s.st_mode);
	uint32_t rights = rights_of(s.st_mode, flags, terminal), inherited = rights;
	if (d->preopen) {
		flags = 0;
		rights = RIGHTS_OF_ROOT;
		inherited = RIGHTS_IN_ROOT;
	} else if (d->kind == DIRECTORY) {
		flags = 0;
	} else if (d->kind == STREAM) {
		flags = d->nonblock ? O_NONBLOCK : 0;
		rights = inherited = d->input ? MAY_READ : MAY_WRITE;
		if (type == TYPE_CHARACTER && !terminal)
			type = TYPE_UNKNOWN;
	}
	memset(out, 0, 24);
	out[0] = type;
	store16(out + 2, flags_of(flags));
	store64(out + 8, rights);
	store64(out + 16, inherited);
	return 0;
}

int call_fd_fdstat_set_flags(struct guest *g, const wasmtime_val_raw_t *a) {
	uint32_t flags = u32(&a[1]);
	struct descriptor *d = described(g, u32(&a[0]));
	if (d == NULL || d->kind == DIRECTORY)
		return WASI_BADF;
	if (flags & ~(uint32_t)(FLAG_APPEND | FLAG_NONBLOCK))
		return WASI_INVAL;
	if (d->kind == STREAM) {
		d->nonblock = flags & FLAG_NONBLOCK;
		return 0;
	}
	int now = fcntl(d->fd, F_GETFL);
	if (now < 0)
		return failure();
	now &= ~(O_APPEND | O_NONBLOCK);
	return outcome(fcntl(d->fd, F_SETFL, now | (flags & FLAG_APPEND ? O_APPEND : 0) | (flags & FLAG_NONBLOCK ? O_NONBLOCK : 0)));
}

// Rights cannot be given up: the kernel's are the ones that count.
int call_fd_fdstat_set_rights(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = described(g, u32(&a[0]));
	return d == NULL || d->kind == STREAM ? WASI_BADF : WASI_NOTSUP;
}
