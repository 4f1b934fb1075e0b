// Changes of directories, and links.

#include "calls.h"

#include <stdio.h> // renameat
#include <unistd.h>

#include "memory.h"

// where finds the place of a path of the guest's. path has room for it.
static int where(struct guest *g, uint32_t number, uint32_t at, uint32_t length, char path[PATH_MAX], struct place *p) {
	int error = 0;
	struct descriptor *d = directory(g, number, &error);
	if (d != NULL)
		error = path_from(g, at, length, path);
	if (error != 0)
		return error;
	return find(g, d, path, p) ? 0 : failure();
}

static int left(const struct place *p, int result) {
	leave(p);
	return outcome(result);
}

int call_path_create_directory(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place p;
	int error = where(g, u32(&a[0]), u32(&a[1]), u32(&a[2]), g->path, &p);
	return error != 0 ? error : left(&p, mkdirat(p.dir, p.name, 0777));
}

int call_path_remove_directory(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place p;
	int error = where(g, u32(&a[0]), u32(&a[1]), u32(&a[2]), g->path, &p);
	return error != 0 ? error : left(&p, unlinkat(p.dir, p.name, AT_REMOVEDIR));
}

int call_path_unlink_file(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place p;
	int error = where(g, u32(&a[0]), u32(&a[1]), u32(&a[2]), g->path, &p);
	return error != 0 ? error : left(&p, unlinkat(p.dir, p.name, 0));
}

int call_path_symlink(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place p;
	int error = path_from(g, u32(&a[0]), u32(&a[1]), g->other);
	if (error == 0)
		error = where(g, u32(&a[2]), u32(&a[3]), u32(&a[4]), g->path, &p);
	return error != 0 ? error : left(&p, symlinkat(g->other, p.dir, p.name));
}

int call_path_rename(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place from, to;
	int error = where(g, u32(&a[0]), u32(&a[1]), u32(&a[2]), g->path, &from);
	if (error != 0)
		return error;
	error = where(g, u32(&a[3]), u32(&a[4]), u32(&a[5]), g->other, &to);
	if (error == 0)
		error = left(&to, renameat(from.dir, from.name, to.dir, to.name));
	leave(&from);
	return error;
}

// link_place links a file. A slash after the name of a link would make the kernel follow it,
// and nothing that may have that slash can be linked.
static int link_place(const struct place *from, const struct place *to) {
	if (is_entry(from->name))
		return linkat(from->dir, from->name, to->dir, to->name, 0);
	errno = EPERM;
	return -1;
}

int call_path_link(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place from, to;
	if (u32(&a[1]) != 0)
		return WASI_INVAL; // a link to what a link leads to, which preview 1 leaves open
	int error = where(g, u32(&a[0]), u32(&a[2]), u32(&a[3]), g->path, &from);
	if (error != 0)
		return error;
	error = where(g, u32(&a[4]), u32(&a[5]), u32(&a[6]), g->other, &to);
	if (error == 0)
		error = left(&to, link_place(&from, &to));
	leave(&from);
	return error;
}

// readlink_at reads a link. Anything that is no entry of a directory leads to a directory.
static int readlink_at(const struct place *p, char *out, size_t room) {
	if (is_entry(p->name))
		return (int)readlinkat(p->dir, p->name, out, room);
	if (exists(p) == 0 || errno == EXDEV)
		errno = EINVAL;
	return -1;
}

int call_path_readlink(struct guest *g, const wasmtime_val_raw_t *a) {
	struct place p;
	uint32_t room = u32(&a[4]);
	uint8_t *out = span(g, u32(&a[3]), room);
	if (out == NULL || span(g, u32(&a[5]), 4) == NULL)
		return OUTSIDE;
	int error = where(g, u32(&a[0]), u32(&a[1]), u32(&a[2]), g->path, &p);
	if (error != 0)
		return error;
	int length = readlink_at(&p, g->other, PATH_MAX);
	leave(&p);
	if (length < 0)
		return failure();
	if ((uint32_t)length > room)
		length = (int)room;
	memcpy(out, g->other, (size_t)length);
	return put32(g, u32(&a[5]), (uint32_t)length);
}
