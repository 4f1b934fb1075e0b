// What a guest has from its process: arguments, environment, clocks, chance, its end.

#include "calls.h"

#include <sched.h>
#include <sys/random.h>
#include <time.h>

#include "memory.h"

static int put_sizes(struct guest *g, const struct strings *s, const wasmtime_val_raw_t *a) {
	int error = put32(g, u32(&a[0]), s->count);
	return error != 0 ? error : put32(g, u32(&a[1]), s->size);
}

static int put_strings(struct guest *g, const struct strings *s, const wasmtime_val_raw_t *a) {
	uint32_t at = u32(&a[1]);
	uint8_t *pointers = array(g, u32(&a[0]), s->count, 4), *bytes = span(g, at, s->size);
	if (pointers == NULL || bytes == NULL)
		return OUTSIDE;
	if (s->size > 0)
		memcpy(bytes, s->bytes, s->size);
	const char *next = s->bytes;
	for (uint32_t i = 0; i < s->count; i++, next += strlen(next) + 1)
		store32(pointers + 4 * (size_t)i, at + (uint32_t)(next - s->bytes));
	return 0;
}

int call_args_get(struct guest *g, const wasmtime_val_raw_t *a) { return put_strings(g, &g->args, a); }
int call_args_sizes_get(struct guest *g, const wasmtime_val_raw_t *a) { return put_sizes(g, &g->args, a); }
int call_environ_get(struct guest *g, const wasmtime_val_raw_t *a) { return put_strings(g, &g->env, a); }
int call_environ_sizes_get(struct guest *g, const wasmtime_val_raw_t *a) { return put_sizes(g, &g->env, a); }

static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID };

static int clock_value(struct guest *g, uint32_t id, int (*read)(clockid_t, struct timespec *), uint32_t out) {
	struct timespec t;
	if (id > CLOCK_OF_THREAD)
		return WASI_INVAL;
	if (read(clocks[id], &t) != 0)
		return failure();
	return put64(g, out, (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec);
}

int call_clock_res_get(struct guest *g, const wasmtime_val_raw_t *a) {
	return clock_value(g, u32(&a[0]), clock_getres, u32(&a[1]));
}

int call_clock_time_get(struct guest *g, const wasmtime_val_raw_t *a) {
	return clock_value(g, u32(&a[0]), clock_gettime, u32(&a[2]));
}

int call_random_get(struct guest *g, const wasmtime_val_raw_t *a) {
	size_t left = u32(&a[1]);
	uint8_t *out = span(g, u32(&a[0]), left);
	if (out == NULL)
		return OUTSIDE;
	while (left > 0) {
		ssize_t n = getrandom(out, left, 0);
		if (n < 0 && errno != EINTR)
			return failure();
		if (n > 0) {
			out += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

int call_proc_exit(struct guest *g, const wasmtime_val_raw_t *a) {
	g->exited = true;
	g->status = a[0].i32;
	return EXIT;
}

int call_proc_raise(struct guest *g, const wasmtime_val_raw_t *a) {
	(void)g;
	(void)a;
	return WASI_NOTSUP; // WASI has no handlers for signals
}

int call_sched_yield(struct guest *g, const wasmtime_val_raw_t *a) {
	(void)g;
	(void)a;
	return outcome(sched_yield());
}
