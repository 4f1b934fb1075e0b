#include "guest.h"

#include <stdlib.h>
#include <unistd.h>

#include "link.h"

static bool copy_strings(struct strings *s, uint32_t count, const char *bytes, uint32_t size) {
	s->bytes = malloc(size + 1);
	if (s->bytes == NULL)
		return false;
	if (size > 0)
		memcpy(s->bytes, bytes, size);
	s->count = count;
	s->size = size;
	return true;
}

struct guest *guest_new(const int streams[3], uint32_t args, const char *arg_bytes, uint32_t arg_size,
	uint32_t env, const char *env_bytes, uint32_t env_size) {
	struct guest *g = calloc(1, sizeof *g);
	if (g == NULL)
		return NULL;
	bool made = copy_strings(&g->args, args, arg_bytes, arg_size) && copy_strings(&g->env, env, env_bytes, env_size);
	for (int i = 0; made && i < 3; i++)
		made = add(g, (struct descriptor){ .kind = STREAM, .fd = streams[i], .input = i == 0 }) >= 0;
	if (made)
		return g;
	guest_free(g);
	return NULL;
}

int guest_preopen(struct guest *g, const char *path, const char *name) {
	struct root *roots = realloc(g->roots, (size_t)(g->root_count + 1) * sizeof *roots);
	if (roots == NULL)
		return ENOMEM;
	g->roots = roots;
	struct root r = { .fd = root_open(path), .name = strdup(name) };
	if (r.fd < 0 || r.name == NULL) {
		int error = r.fd < 0 ? errno : ENOMEM;
		free(r.name);
		if (r.fd >= 0)
			close(r.fd);
		return error;
	}
	g->roots[g->root_count] = r;
	// The root stays when the guest closes its number: links still lead into it.
	struct descriptor d = { .kind = DIRECTORY, .fd = r.fd, .preopen = true, .root = g->root_count++ };
	return add(g, d) < 0 ? errno : 0;
}

void guest_free(struct guest *g) {
	for (uint32_t i = 0; i < g->capacity; i++)
		if (g->table[i].kind != UNUSED)
			release(&g->table[i]);
	for (int i = 0; i < g->root_count; i++) {
		close(g->roots[i].fd);
		free(g->roots[i].name);
	}
	free(g->table);
	free(g->roots);
	free(g->args.bytes);
	free(g->env.bytes);
	free(g);
}

bool guest_exited(const struct guest *g, int32_t *status) {
	*status = g->status;
	return g->exited;
}
