// What Go calls.

#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stdint.h>

struct guest;
struct link;

// guest_new returns a guest with three standard streams, and the strings, each with a NUL; or NULL
// if there is no memory. The streams stay open when it ends.
struct guest *guest_new(const int streams[3], uint32_t args, const char *arg_bytes, uint32_t arg_size,
	uint32_t env, const char *env_bytes, uint32_t env_size);
// guest_preopen gives the guest a directory of that name. It returns 0 or errno.
int guest_preopen(struct guest *, const char *path, const char *name);
void guest_free(struct guest *);
bool guest_exited(const struct guest *, int32_t *status);

// guest_define defines the functions for the guest in a linker, a wasmtime_linker_t. It returns the
// name of one that is refused, or NULL.
const char *guest_define(struct guest *, void *linker);
// provides reports whether there is a function of that name.
bool provides(const char *name);

#endif
