// Declares all functions that the guest calls.

#ifndef CALLS_H
#define CALLS_H

#include "functions.h"
#include "guest.h"

#define DECLARE(name, params) int call_##name(struct guest *, const wasmtime_val_raw_t *);
FUNCTIONS(DECLARE)
#undef DECLARE

#endif
