// The guest's memory. No other file turns a number of the guest's into a pointer.

#ifndef MEMORY_H
#define MEMORY_H

#include "guest.h"

// span returns the length bytes at a place in the guest's memory, or NULL if it does not have all
// of them. The sum cannot overflow, because the comparison is a difference of what the guest has.
static inline uint8_t *span(const struct guest *g, uint32_t at, uint64_t length) {
	if (length > g->size || at > g->size - length)
		return NULL;
	return g->memory + at;
}

// array returns the place of count elements of a size. Both numbers have 32 bits, so their product
// fits.
static inline uint8_t *array(const struct guest *g, uint32_t at, uint32_t count, uint32_t size) {
	return span(g, at, (uint64_t)count * size);
}

// load and store move one value, at any alignment. Wasm's byte order is that of our machines.
static inline uint32_t load32(const uint8_t *from) {
	uint32_t value;
	memcpy(&value, from, sizeof value);
	return value;
}

static inline uint64_t load64(const uint8_t *from) {
	uint64_t value;
	memcpy(&value, from, sizeof value);
	return value;
}

static inline void store16(uint8_t *to, uint16_t value) { memcpy(to, &value, sizeof value); }
static inline void store32(uint8_t *to, uint32_t value) { memcpy(to, &value, sizeof value); }
static inline void store64(uint8_t *to, uint64_t value) { memcpy(to, &value, sizeof value); }

// put32 and put64 store a result at a place that the guest chose.
static inline int put32(const struct guest *g, uint32_t at, uint32_t value) {
	uint8_t *to = span(g, at, sizeof value);
	if (to == NULL)
		return OUTSIDE;
	store32(to, value);
	return 0;
}

static inline int put64(const struct guest *g, uint32_t at, uint64_t value) {
	uint8_t *to = span(g, at, sizeof value);
	if (to == NULL)
		return OUTSIDE;
	store64(to, value);
	return 0;
}

// path_from copies a path of the guest's, with a NUL at its end. Otherwise the error is not 0.
static inline int path_from(const struct guest *g, uint32_t at, uint32_t length, char out[PATH_MAX]) {
	const uint8_t *from = span(g, at, length);
	if (from == NULL)
		return OUTSIDE;
	if (length >= PATH_MAX)
		return WASI_NAMETOOLONG;
	if (memchr(from, 0, length) != NULL)
		return WASI_INVAL;
	memcpy(out, from, length);
	out[length] = 0;
	return 0;
}

#endif
