#include "calls.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "memory.h"

// flags_for returns the flags of open(2).
static uint64_t flags_for(uint32_t lookup, uint32_t how, uint64_t rights, uint32_t flags) {
	bool reads = rights & MAY_READ, writes = rights & MAY_WRITE;
	uint64_t out = O_NOCTTY | (writes ? (reads ? O_RDWR : O_WRONLY) : O_RDONLY);
	if (!(lookup & SYMLINK_FOLLOW))
		out |= O_NOFOLLOW;
	if (how & OPEN_CREATE)
		out |= O_CREAT;
	if (how & OPEN_DIRECTORY)
		out |= O_DIRECTORY;
	if (how & OPEN_EXCLUSIVE)
		out |= O_EXCL;
	if (how & OPEN_TRUNCATE)
		out |= O_TRUNC;
	if (flags & FLAG_APPEND)
		out |= O_APPEND;
	if (flags & FLAG_DSYNC)
		out |= O_DSYNC;
	if (flags & FLAG_NONBLOCK)
		out |= O_NONBLOCK;
	if (flags & (FLAG_SYNC | FLAG_RSYNC))
		out |= O_SYNC;
	return out;
}

// is_process reports whether a file is one of proc(5): by writing to mem there the guest would write
// to the memory of its own process.
static bool is_process(int fd) {
	struct statfs s;
	return fstatfs(fd, &s) != 0 || s.f_type == PROC_SUPER_MAGIC;
}

// give gives the guest a number for a descriptor, or closes it.
static int give(struct guest *g, struct descriptor d, uint32_t out) {
	int64_t number = add(g, d);
	if (number < 0) {
		int error = failure();
		release(&d);
		return error;
	}
	return put32(g, out, (uint32_t)number);
}

// give_stream gives the guest one more number for one of its own descriptors.
static int give_stream(struct guest *g, uint32_t number, uint32_t out) {
	struct descriptor *d = described(g, number);
	if (d == NULL || d->kind == DIRECTORY)
		return WASI_NOENT;
	struct descriptor copy = *d;
	copy.path = NULL;
	copy.listing = NULL;
	copy.fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 3);
	copy.owned = true;
	if (copy.fd < 0)
		return failure();
	return give(g, copy, out);
}

// describe makes a descriptor of an open file. Only what is opened for reading can be a directory.
static int describe(const struct descriptor *parent, const char *path, int fd, uint64_t flags, struct descriptor *out) {
	char whole[PATH_MAX];
	*out = (struct descriptor){ .kind = FILE_OR_DEVICE, .fd = fd, .owned = true, .root = parent->root };
	if ((flags & O_ACCMODE) != O_RDONLY)
		return is_process(fd) ? WASI_ACCES : 0;
	out->kind = flags & O_DIRECTORY ? DIRECTORY : UNSETTLED;
	out->path = path_in(parent, path, whole) ? strdup(whole) : NULL;
	return 0;
}

int call_path_open(struct guest *g, const wasmtime_val_raw_t *a) {
	uint32_t lookup = u32(&a[1]), how = u32(&a[4]), flags = u32(&a[7]), out = u32(&a[8]);
	int error = 0;
	if (span(g, out, 4) == NULL)
		return OUTSIDE;
	if (lookup > SYMLINK_FOLLOW || how > 15 || flags > 31)
		return WASI_INVAL;
	struct descriptor *parent = directory(g, u32(&a[0]), &error);
	if (parent != NULL)
		error = path_from(g, u32(&a[2]), u32(&a[3]), g->path);
	if (error != 0)
		return error;
	// Kernels differ in what they make of O_DIRECTORY with O_CREAT.
	if (how & OPEN_DIRECTORY && how != OPEN_DIRECTORY)
		return WASI_INVAL;
	uint64_t open_flags = flags_for(lookup, how, u64(&a[5]), flags);
	int fd = open_in(g, parent, g->path, open_flags, how & OPEN_CREATE ? 0666 : 0);
	if (fd < 0) {
		error = failure();
		bool maybe = (errno == ENOENT || errno == ELOOP) && lookup & SYMLINK_FOLLOW && !(how & OPEN_DIRECTORY);
		int64_t number = maybe ? stream_at(g, parent, g->path, true) : -1;
		return number < 0 ? error : give_stream(g, (uint32_t)number, out);
	}
	struct descriptor d;
	error = describe(parent, g->path, fd, open_flags, &d);
	if (error != 0) {
		close(fd);
		return error;
	}
	return give(g, d, out);
}
