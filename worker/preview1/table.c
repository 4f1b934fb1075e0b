#include "calls.h"

#include <stdlib.h>
#include <unistd.h>

#include "memory.h"

struct descriptor *numbered(struct guest *g, uint32_t number) {
	if (number >= g->capacity || g->table[number].kind == UNUSED)
		return NULL;
	return &g->table[number];
}

struct descriptor *described(struct guest *g, uint32_t number) {
	struct stat s;
	struct descriptor *d = numbered(g, number);
	if (d != NULL && d->kind == UNSETTLED)
		d->kind = fstat_of(d->fd, &s) == 0 && S_ISDIR(s.st_mode) ? DIRECTORY : FILE_OR_DEVICE;
	return d;
}

struct descriptor *directory(struct guest *g, uint32_t number, int *error) {
	struct descriptor *d = described(g, number);
	if (d == NULL || d->kind == STREAM)
		*error = WASI_BADF;
	else if (d->kind != DIRECTORY)
		*error = WASI_NOTDIR;
	else
		return d;
	return NULL;
}

// grow makes room for twice as many descriptors. The kernel's limit of open files bounds them.
static bool grow(struct guest *g) {
	uint32_t capacity = g->capacity == 0 ? 16 : 2 * g->capacity;
	struct descriptor *table = realloc(g->table, capacity * sizeof *table);
	if (table == NULL)
		return false;
	memset(table + g->capacity, 0, (capacity - g->capacity) * sizeof *table);
	g->table = table;
	g->capacity = capacity;
	return true;
}

int64_t add(struct guest *g, struct descriptor d) {
	uint32_t number = g->lowest;
	while (number < g->capacity && g->table[number].kind != UNUSED)
		number++;
	if (number == g->capacity && !grow(g)) {
		errno = ENOMEM;
		return -1;
	}
	g->table[number] = d;
	g->lowest = number + 1;
	return number;
}

void release(struct descriptor *d) {
	if (d->owned)
		close(d->fd);
	free(d->path);
	listing_free(d->listing);
	*d = (struct descriptor){ .kind = UNUSED };
}

static void vacate(struct guest *g, uint32_t number) {
	if (number < g->lowest)
		g->lowest = number;
}

int call_fd_close(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = numbered(g, u32(&a[0]));
	if (d == NULL)
		return WASI_BADF;
	release(d);
	vacate(g, u32(&a[0]));
	return 0;
}

int call_fd_renumber(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *from = numbered(g, u32(&a[0])), *to = numbered(g, u32(&a[1]));
	if (from == NULL || to == NULL)
		return WASI_BADF;
	if (from == to)
		return 0;
	release(to);
	*to = *from;
	*from = (struct descriptor){ .kind = UNUSED };
	vacate(g, u32(&a[0]));
	return 0;
}

int call_fd_prestat_get(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = numbered(g, u32(&a[0]));
	if (d == NULL || !d->preopen)
		return WASI_BADF;
	uint8_t *out = span(g, u32(&a[1]), 8);
	if (out == NULL)
		return OUTSIDE;
	store32(out, 0); // a directory
	store32(out + 4, (uint32_t)strlen(g->roots[d->root].name));
	return 0;
}

int call_fd_prestat_dir_name(struct guest *g, const wasmtime_val_raw_t *a) {
	struct descriptor *d = numbered(g, u32(&a[0]));
	if (d == NULL || !d->preopen)
		return WASI_NOTDIR;
	const char *name = g->roots[d->root].name;
	uint32_t length = (uint32_t)strlen(name);
	if (length > u32(&a[2]))
		return WASI_NAMETOOLONG;
	uint8_t *out = span(g, u32(&a[1]), length);
	if (out == NULL)
		return OUTSIDE;
	memcpy(out, name, length);
	return 0;
}

// Sockets: a guest has none.
static int not_a_socket(struct guest *g, uint32_t number) {
	return numbered(g, number) == NULL ? WASI_BADF : WASI_NOTSOCK;
}

int call_sock_accept(struct guest *g, const wasmtime_val_raw_t *a) { return not_a_socket(g, u32(&a[0])); }
int call_sock_recv(struct guest *g, const wasmtime_val_raw_t *a) { return not_a_socket(g, u32(&a[0])); }
int call_sock_send(struct guest *g, const wasmtime_val_raw_t *a) { return not_a_socket(g, u32(&a[0])); }
int call_sock_shutdown(struct guest *g, const wasmtime_val_raw_t *a) { return not_a_socket(g, u32(&a[0])); }
