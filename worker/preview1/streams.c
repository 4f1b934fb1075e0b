// The names of a guest's own streams, which native containers have as links into /proc.

#include "guest.h"

#include <stdlib.h>
#include <unistd.h>

// number_of returns N for "N", else -1.
static int64_t number_of(const char *digits) {
	char *end;
	if (digits[0] < '0' || digits[0] > '9')
		return -1;
	errno = 0;
	unsigned long number = strtoul(digits, &end, 10);
	return *end == 0 && errno == 0 && number <= INT32_MAX ? (int64_t)number : -1;
}

// stream_named returns the number that a path from the root, without links, "." and "..", stands for.
static int64_t stream_named(const char *path) {
	static const char *const names[] = { "dev/stdin", "dev/stdout", "dev/stderr" };
	for (int i = 0; i < 3; i++)
		if (strcmp(path, names[i]) == 0)
			return i;
	if (strncmp(path, "dev/fd/", 7) == 0)
		return number_of(path + 7);
	if (strncmp(path, "proc/self/fd/", 13) == 0)
		return number_of(path + 13);
	return -1;
}

// clean removes ".", ".." and superfluous slashes.
static void clean(char *path) {
	char *out = path;
	for (const char *in = path; *in != 0;) {
		size_t length = strcspn(in, "/");
		if (length == 2 && in[0] == '.' && in[1] == '.') {
			while (out > path && *--out != '/') {
			}
		} else if (length > 0 && !(length == 1 && in[0] == '.')) {
			if (out > path)
				*out++ = '/';
			memmove(out, in, length);
			out += length;
		}
		in += length;
		in += strspn(in, "/");
	}
	*out = 0;
}

// follow_link replaces a path from the root by what the link there says. It is false if there is none.
static bool follow_link(struct guest *g, const struct descriptor *root, char path[PATH_MAX]) {
	struct place p;
	char name[PATH_MAX];
	strcpy(name, path);
	if (!find(g, root, name, &p))
		return false;
	ssize_t length = is_entry(p.name) ? readlinkat(p.dir, p.name, g->other, PATH_MAX - 1) : -1;
	leave(&p);
	if (length <= 0)
		return false;
	g->other[length] = 0;
	size_t kept = g->other[0] == '/' ? 0 : strlen(path) - strlen(p.name);
	if (kept + (size_t)length >= PATH_MAX)
		return false;
	memcpy(path + kept, g->other, (size_t)length + 1);
	return true;
}

int64_t stream_at(struct guest *g, const struct descriptor *d, const char *path, bool follow) {
	char at[PATH_MAX];
	struct descriptor root = { .kind = DIRECTORY, .fd = g->roots[d->root].fd, .preopen = true, .root = d->root };
	if (path[0] == '/' || !path_in(d, path, at))
		return -1;
	for (int links = 0; links < 8; links++) {
		clean(at);
		int64_t number = stream_named(at);
		if (number >= 0 || !follow || !follow_link(g, &root, at))
			return number;
	}
	return -1;
}
