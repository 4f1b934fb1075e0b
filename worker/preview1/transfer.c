// Reading, writing, and the positions and contents of open files. The kernel reads and writes the guest's memory.

#include "calls.h"

#include <poll.h>
#include <unistd.h>

#include "memory.h"

// gather makes a list of the guest's buffers that are not empty, IOV_MAX of them at most: a call
// may always move less. It returns their number, or OUTSIDE.
static int gather(struct guest *g, uint32_t at, uint32_t count) {
	int n = 0;
	const uint8_t *from = array(g, at, count, 8);
	if (from == NULL)
		return OUTSIDE;
	for (; count > 0 && n < IOV_MAX; count--, from += 8) {
		uint32_t length = load32(from + 4);
		uint8_t *base = span(g, load32(from), length);
		if (base == NULL)
			return OUTSIDE;
		if (length > 0)
			g->vectors[n++] = (struct iovec){ .iov_base = base, .iov_len = length };
	}
	return n;
}

static bool is_ready(int fd, short events, int timeout) {
	struct pollfd p = { .fd = fd, .events = events };
	int n;
	do
		n = poll(&p, 1, timeout);
	while (n < 0 && errno == EINTR && timeout < 0);
	return n != 0;
}

// transfer moves bytes at the file's position, or at an offset that is not negative.
static ssize_t transfer(int fd, const struct iovec *v, int n, bool write, bool positioned, off_t offset) {
	if (positioned)
		return write ? pwritev(fd, v, n, offset) : preadv(fd, v, n, offset);
	return write ? writev(fd, v, n) : readv(fd, v, n);
}

// move reads or writes, and stores the number of bytes for the guest. A stream's file description is
// shared with others, so whether a guest waits is decided here and not by its flags.
static int move(struct guest *g, const wasmtime_val_raw_t *a, bool write, bool positioned) {
	off_t offset = positioned ? (off_t)u64(&a[3]) : 0;
	uint32_t out = u32(&a[positioned ? 4 : 3]);
	int n = gather(g, u32(&a[1]), u32(&a[2]));
	if (n < 0 || span(g, out, 4) == NULL)
		return OUTSIDE;
	// The kernel does not say that a directory is one if nothing is to be read, or from too far.
	struct descriptor *d = n == 0 ? described(g, u32(&a[0])) : numbered(g, u32(&a[0]));
	if (d == NULL || (d->kind == DIRECTORY && write))
		return WASI_BADF;
	if (d->kind == DIRECTORY)
		return WASI_ISDIR;
	bool waits = d->kind == STREAM && !d->nonblock;
	short events = write ? POLLOUT : POLLIN;
	if (d->kind == STREAM && d->nonblock) {
		if (!is_ready(d->fd, events, 0))
			return WASI_AGAIN;
		if (n > 1)
			n = 1;
		// A pipe that is ready has room for that much.
		if (write && n > 0 && g->vectors[0].iov_len > PIPE_BUF)
			g->vectors[0].iov_len = PIPE_BUF;
	}
	for (;;) {
		ssize_t moved = transfer(d->fd, g->vectors, n, write, positioned, offset);
		if (moved >= 0)
			return put32(g, out, (uint32_t)moved);
		if (errno == EINTR)
			continue;
		if (errno == EINVAL && described(g, u32(&a[0]))->kind == DIRECTORY)
			return WASI_ISDIR;
		if (errno != EAGAIN || !waits)
			return failure();
		is_ready(d->fd, events, -1);
	}
}

int call_fd_read(struct guest *g, const wasmtime_val_raw_t *a) { return move(g, a, false, false); }
int call_fd_pread(struct guest *g, const wasmtime_val_raw_t *a) { return move(g, a, false, true); }
int call_fd_write(struct guest *g, const wasmtime_val_raw_t *a) { return move(g, a, true, false); }
int call_fd_pwrite(struct guest *g, const wasmtime_val_raw_t *a) { return move(g, a, true, true); }

// file returns an open file that is no directory, or NULL.
static struct descriptor *file(struct guest *g, uint32_t number) {
	struct descriptor *d = described(g, number);
	return d == NULL || d->kind == DIRECTORY ? NULL : d;
}

static int seek(struct guest *g, uint32_t number, int64_t offset, int whence, uint32_t out) {
	struct descriptor *d = file(g, number);
	if (d == NULL)
		return WASI_BADF;
	if (span(g, out, 8) == NULL)
		return OUTSIDE;
	off_t at = lseek(d->fd, offset, whence);
	return at < 0 ? failure() : put64(g, out, (uint64_t)at);
}

int call_fd_seek(struct guest *g, const wasmtime_val_raw_t *a) {
	static const int whences[] = { SEEK_SET, SEEK_CUR, SEEK_END };
	if (u32(&a[2]) > 2)
		return WASI_INVAL;
	return seek(g, u32(&a[0]), a[1].i64, whences[u32(&a[2])], u32(&a[3]));
}

int call_fd_tell(struct guest *g, const wasmtime_val_raw_t *a) { return seek(g, u32(&a[0]), 0, SEEK_CUR, u32(&a[1])); }

int call_fd_advise(struct guest *g, const wasmtime_val_raw_t *a) {
	static const int advices[] = {
		POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE,
	};
	if (u32(&a[3]) > 5)
		return WASI_INVAL;
	struct descriptor *d = file(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	int error = posix_fadvise(d->fd, a[1].i64, a[2].i64, advices[u32(&a[3])]);
	return error == 0 ? 0 : errno_for(error);
}

int call_fd_allocate(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = file(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	return outcome(fallocate(d->fd, 0, a[1].i64, a[2].i64));
}

int call_fd_sync(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = numbered(g, u32(&a[0]));
	return d == NULL ? WASI_BADF : outcome(fsync(d->fd));
}

int call_fd_datasync(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = numbered(g, u32(&a[0]));
	return d == NULL ? WASI_BADF : outcome(fdatasync(d->fd));
}
