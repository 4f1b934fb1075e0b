// Waiting for descriptors and clocks.

#include "calls.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>

#include "memory.h"

enum { SUBSCRIPTION = 48, EVENT = 32, MOST = 1 << 16, FEW = 16 };
static const int64_t FOREVER = INT64_MAX;

// A subscription, read once: the guest's memory may be the same for its events.
struct wish {
	uint64_t userdata;
	uint8_t kind;
	int error; // there is no such descriptor
	int64_t left; // nanoseconds of a clock
};

static int64_t now_on(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t bounded(uint64_t nanoseconds) { return nanoseconds > (uint64_t)FOREVER ? FOREVER : (int64_t)nanoseconds; }

// read_clock reads a subscription to a clock.
static int read_clock(const uint8_t *from, struct wish *w) {
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC };
	uint32_t id = load32(from + 16), flags = load32(from + 40) & 0xffff;
	if (id > CLOCK_OF_BOOT || flags > CLOCK_ABSOLUTE)
		return WASI_INVAL;
	w->left = bounded(load64(from + 24));
	if (flags & CLOCK_ABSOLUTE) {
		int64_t now = now_on(clocks[id]);
		w->left = w->left > now ? w->left - now : 0;
	}
	return 0;
}

// read_descriptor reads a subscription to a descriptor.
static void read_descriptor(struct guest *g, const uint8_t *from, struct wish *w, struct pollfd *p) {
	struct descriptor *d = described(g, load32(from + 16));
	if (d == NULL || d->kind == DIRECTORY) {
		w->error = WASI_BADF;
		return;
	}
	*p = (struct pollfd){ .fd = d->fd, .events = w->kind == EVENT_READ ? POLLIN : POLLOUT };
}

// read_all reads the subscriptions. *left becomes the time to wait.
static int read_all(struct guest *g, const uint8_t *from, uint32_t count, struct wish *wishes, struct pollfd *polled, int64_t *left) {
	*left = FOREVER;
	for (uint32_t i = 0; i < count; i++, from += SUBSCRIPTION) {
		struct wish *w = &wishes[i];
		*w = (struct wish){ .userdata = load64(from), .kind = from[8], .left = FOREVER };
		polled[i] = (struct pollfd){ .fd = -1 };
		if (w->kind > EVENT_WRITE)
			return WASI_INVAL;
		if (w->kind != EVENT_CLOCK) {
			read_descriptor(g, from, w, &polled[i]);
		} else {
			int error = read_clock(from, w);
			if (error != 0)
				return error;
		}
		if (w->error != 0)
			*left = 0;
		else if (w->left < *left)
			*left = w->left;
	}
	return 0;
}

// wait_for waits until a descriptor is ready or the time is over. It returns how much of it has passed.
static int wait_for(struct pollfd *polled, uint32_t count, int64_t left, int64_t *passed) {
	int64_t begun = now_on(CLOCK_MONOTONIC);
	for (;;) {
		int64_t rest = left - *passed;
		struct timespec t = { .tv_sec = rest / 1000000000, .tv_nsec = rest % 1000000000 };
		int n = ppoll(polled, count, left == FOREVER ? NULL : &t, NULL);
		int error = errno;
		*passed = now_on(CLOCK_MONOTONIC) - begun;
		if (n > 0 || (n == 0 && *passed >= left))
			return 0;
		if (n < 0 && error != EINTR)
			return errno_for(error);
		if (*passed > left)
			*passed = left;
	}
}

// is_due reports whether there is an event to tell.
static bool is_due(const struct wish *w, const struct pollfd *p, int64_t passed) {
	return w->error != 0 || (w->kind == EVENT_CLOCK ? passed >= w->left : p->revents != 0);
}

static uint64_t readable(int fd) {
	int bytes = 0;
	return ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? (uint64_t)bytes : 1;
}

static void put_event(const struct wish *w, const struct pollfd *p, uint8_t *out) {
	memset(out, 0, EVENT);
	store64(out, w->userdata);
	store16(out + 8, (uint16_t)(p->revents & POLLNVAL ? WASI_BADF : w->error));
	out[10] = w->kind;
	if (w->kind == EVENT_CLOCK || w->error != 0)
		return;
	store64(out + 16, w->kind == EVENT_READ ? readable(p->fd) : 1);
	if (p->revents & (POLLHUP | POLLERR))
		store16(out + 24, EVENT_HANGUP);
}

static int poll_all(struct guest *g, const uint8_t *from, uint8_t *to, uint32_t count, struct wish *wishes, struct pollfd *polled, uint32_t *told) {
	int64_t left, passed = 0;
	int error = read_all(g, from, count, wishes, polled, &left);
	if (error == 0)
		error = wait_for(polled, count, left, &passed);
	*told = 0;
	for (uint32_t i = 0; error == 0 && i < count; i++)
		if (is_due(&wishes[i], &polled[i], passed))
			put_event(&wishes[i], &polled[i], to + EVENT * (*told)++);
	return error;
}

int call_poll_oneoff(struct guest *g, const wasmtime_val_raw_t *a) {
	uint32_t count = u32(&a[2]), told;
	const uint8_t *from = array(g, u32(&a[0]), count, SUBSCRIPTION);
	uint8_t *to = array(g, u32(&a[1]), count, EVENT);
	if (from == NULL || to == NULL || span(g, u32(&a[3]), 4) == NULL)
		return OUTSIDE;
	if (count == 0)
		return WASI_INVAL; // it would wait for ever
	if (count > MOST)
		return WASI_NOMEM;
	struct wish few_wishes[FEW], *wishes = few_wishes;
	struct pollfd few_polled[FEW], *polled = few_polled;
	if (count > FEW) {
		wishes = malloc(count * sizeof *wishes);
		polled = malloc(count * sizeof *polled);
	}
	int error = wishes == NULL || polled == NULL ? WASI_NOMEM : poll_all(g, from, to, count, wishes, polled, &told);
	if (count > FEW) {
		free(wishes);
		free(polled);
	}
	return error != 0 ? error : put32(g, u32(&a[3]), told);
}
