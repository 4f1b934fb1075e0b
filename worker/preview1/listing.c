// Folders. A listing is kept between calls, so that a folder is read once. The cookie of an entry
// is the kernel's: the position after it, as telldir(3) gives it.

#include "calls.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"

// An entry as the kernel has it (getdents64(2)).
struct entry {
	uint64_t ino;
	int64_t next;
	uint16_t length;
	uint8_t type;
	char name[];
};

struct listing {
	uint64_t cookie; // the position of the entry at at
	size_t at, end;
	_Alignas(struct entry) char buffer[32 << 10];
};

void listing_free(struct listing *l) { free(l); }

// seek_to makes a listing begin at a cookie. The start is always read anew.
static int seek_to(struct descriptor *d, uint64_t cookie) {
	if (d->listing == NULL) {
		d->listing = malloc(sizeof *d->listing);
		if (d->listing == NULL)
			return WASI_NOMEM;
	} else if (cookie != 0 && cookie == d->listing->cookie) {
		return 0;
	}
	d->listing->at = d->listing->end = 0;
	d->listing->cookie = cookie;
	if (lseek(d->fd, (off_t)cookie, SEEK_SET) >= 0)
		return 0;
	return errno == EBADF ? WASI_ACCES : failure(); // a root that may not be listed
}

// current returns the entry at the listing's position, or NULL at its end or after an error.
static const struct entry *current(struct descriptor *d, int *error) {
	struct listing *l = d->listing;
	if (l->at == l->end) {
		long n = syscall(SYS_getdents64, d->fd, l->buffer, sizeof l->buffer);
		if (n < 0)
			*error = failure();
		if (n <= 0)
			return NULL;
		l->at = 0;
		l->end = (size_t)n;
	}
	return (const struct entry *)(l->buffer + l->at);
}

static uint8_t type_of(const struct descriptor *d, const struct entry *e) {
	struct stat s;
	if (e->type != 0)
		return filetype_of((mode_t)e->type << 12);
	// The file system does not say.
	return fstatat(d->fd, e->name, &s, AT_SYMLINK_NOFOLLOW) == 0 ? filetype_of(s.st_mode) : TYPE_UNKNOWN;
}

// put_entry writes as much of an entry as there is room for.
static size_t put_entry(const struct descriptor *d, const struct entry *e, uint8_t *out, size_t room) {
	uint8_t head[24] = { 0 };
	size_t length = strlen(e->name), in_head = room < sizeof head ? room : sizeof head;
	store64(head, (uint64_t)e->next);
	store64(head + 8, e->ino);
	store32(head + 16, (uint32_t)length);
	head[20] = type_of(d, e);
	memcpy(out, head, in_head);
	room -= in_head;
	if (length > room)
		length = room;
	memcpy(out + in_head, e->name, length);
	return in_head + length;
}

int call_fd_readdir(struct guest *g, const wasmtime_val_raw_t *a) {
	int error = 0;
	struct descriptor *d = described(g, u32(&a[0]));
	if (d == NULL || d->kind != DIRECTORY)
		return WASI_BADF;
	size_t size = u32(&a[2]), used = 0;
	uint8_t *out = span(g, u32(&a[1]), size);
	if (out == NULL || span(g, u32(&a[4]), 4) == NULL)
		return OUTSIDE;
	if ((error = seek_to(d, u64(&a[3]))) != 0)
		return error;
	while (used < size) {
		const struct entry *e = current(d, &error);
		if (e == NULL)
			break;
		size_t whole = 24 + strlen(e->name), put = put_entry(d, e, out + used, size - used);
		used += put;
		if (put < whole)
			break; // it is there again for the next call
		d->listing->cookie = (uint64_t)e->next;
		d->listing->at += e->length;
	}
	return used == 0 && error != 0 ? error : put32(g, u32(&a[4]), (uint32_t)used);
}
