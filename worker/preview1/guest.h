// A guest of WASI preview 1, and what the functions of this package share.

#ifndef GUEST_H
#define GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "capitypes.h"
#include "wasi.h"

// OUTSIDE is returned by a function whose guest gave it memory that the guest does not have:
// the guest traps, as WASI wants it. EXIT ends the guest.
enum { OUTSIDE = -1, EXIT = -2 };

// UNSETTLED is a file or a directory: nobody has needed to know yet. Asking the kernel at each open
// would cost as much as a read.
enum kind { UNUSED, STREAM, UNSETTLED, FILE_OR_DEVICE, DIRECTORY };

struct listing;

// What a number of the guest's stands for.
struct descriptor {
	enum kind kind;
	int fd;       // of this process
	bool owned;   // the descriptor ends with the number
	bool preopen; // a root itself
	bool input;   // of a STREAM: it is read, or written
	bool nonblock; // of a STREAM, whose file description others share
	int root;     // of a DIRECTORY: the root that it is in
	char *path;   // of a DIRECTORY: its path in that root when it was opened, or NULL
	struct listing *listing; // of a DIRECTORY that is being read
};

struct root {
	int fd;
	char *name;
};

// Strings that the guest gets in one piece, each with a NUL.
struct strings {
	uint32_t count, size;
	char *bytes;
};

// A guest calls from one thread, and none of its memory is shared. So memory and size hold
// until a call returns.
struct guest {
	uint8_t *memory;
	size_t size;
	bool found; // exported is the memory of the only instance
	wasmtime_memory_t exported;

	struct strings args, env;

	struct root *roots;
	int root_count;
	struct descriptor *table;
	uint32_t capacity, lowest; // no number below lowest is free

	bool exited;
	int32_t status;

	char path[PATH_MAX], other[PATH_MAX], whole[PATH_MAX];
	struct iovec vectors[IOV_MAX];
};

// Arguments of a call.
static inline uint32_t u32(const wasmtime_val_raw_t *v) { return (uint32_t)v->i32; }
static inline uint64_t u64(const wasmtime_val_raw_t *v) { return (uint64_t)v->i64; }

// errno.c

// errno_for returns WASI's number of an error of the kernel.
int errno_for(int number);
static inline int failure(void) { return errno_for(errno); }
static inline int outcome(int result) { return result < 0 ? failure() : 0; }

// table.c

// numbered returns what a number of the guest's stands for, or NULL. It may be UNSETTLED.
struct descriptor *numbered(struct guest *, uint32_t number);
// described is the same, and settles the kind.
struct descriptor *described(struct guest *, uint32_t number);
// directory returns the directory of that number, or NULL and the error for the guest.
struct descriptor *directory(struct guest *, uint32_t number, int *error);
// add gives a descriptor the lowest free number. It returns -1 if there is no memory.
int64_t add(struct guest *, struct descriptor);
void release(struct descriptor *);

// listing.c
void listing_free(struct listing *);

// resolve.c

// root_open opens a directory of this process that becomes a root.
int root_open(const char *path);
// open_in opens a path below a directory of the guest's, which leads nowhere outside of the
// root that the directory is in. It returns a descriptor, or -1 and errno.
int open_in(struct guest *, const struct descriptor *, const char *path, uint64_t flags, mode_t);

// place is a name without slashes before its end in a directory of this process.
struct place {
	int dir;
	bool owned;
	const char *name;
};

// find resolves all of a path but its last name. It changes the path.
bool find(struct guest *, const struct descriptor *, char *path, struct place *);
void leave(const struct place *);
// exists returns 0 if a place leads to something beneath its directory, else -1 and errno.
int exists(const struct place *);
// is_entry reports whether a path is the name of an entry of its directory.
bool is_entry(const char *path);
// path_in returns the path that a path below a directory has in the root, or false.
bool path_in(const struct descriptor *, const char *path, char out[PATH_MAX]);

// streams.c

// stream_at returns the number that a path below a directory stands for if it is one of
// /dev/stdin, /dev/stdout, /dev/stderr and /dev/fd/N, else -1. It follows links to these if
// asked to.
int64_t stream_at(struct guest *, const struct descriptor *, const char *path, bool follow);

// status.c
uint8_t filetype_of(mode_t);
int fstat_of(int fd, struct stat *);

#endif
