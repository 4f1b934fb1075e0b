package worker

/*
#include <errno.h>
#include <pthread.h>

enum { most = 64, stack = 64 << 10 };

static void *wait_for(void *lock) {
	pthread_mutex_lock(lock);
	pthread_mutex_unlock(lock);
	return NULL;
}

// at_once starts count threads (at most 64) that exist at the same time, and ends them. It returns 0 or errno.
static int at_once(int count) {
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_t threads[most];
	pthread_attr_t attributes;
	int made = 0, failed = pthread_attr_init(&attributes);

	pthread_attr_setstacksize(&attributes, stack);
	pthread_mutex_lock(&lock);
	while (!failed && made < count && made < most)
		if ((failed = pthread_create(&threads[made], &attributes, wait_for, &lock)) == 0)
			made++;
	pthread_mutex_unlock(&lock);
	while (made > 0)
		pthread_join(threads[--made], NULL);
	pthread_attr_destroy(&attributes);
	return failed;
}
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// engineThreads is how many threads a component's calls may cause the engine to start: tokio's threads for
// events, for files and for standard input, and one more that the Go runtime may need. A module's calls cause
// none; it gets the same limits all the same.
const engineThreads = 4

// compilerThreads returns how many threads the engine compiles with, plus one for the Go runtime.
func compilerThreads() int {
	n, _ := strconv.Atoi(os.Getenv(control.CompileThreadsEnv))
	return n + 1
}

// tryThreads fails unless the engine can start that many more threads. The engine starts each thread when it
// first needs it. It panics if it cannot start the first, and hangs if it cannot start the second, so this
// must be checked before the container counts as started. The limit may be the pod's, which is in no
// specification.
// See RATIONALE.md, "Why are the engine's threads started early?"
func tryThreads(count int) error {
	if failed := C.at_once(C.int(count)); failed != 0 {
		return fmt.Errorf("the engine needs %d threads more and cannot start them: raise the limit of processes and threads, "+
			"linux.resources.pids.limit or the pod's, or RLIMIT_NPROC; %d is the least that a Wasm container needs: %w",
			count, control.LeastThreads, syscall.Errno(failed))
	}
	return nil
}
