// probe does one thing per run, named by its first argument, and prints the result. Through it the
// tests see what a guest sees. An operation that the host refuses prints "OPERATION PATH: REASON" to
// stderr and exits with 1; misuse exits with 2. Arguments "," separate several things to do one
// after the other, up to the first that fails.
//
// Compiled natively, it is the reference for the behaviour of a Wasm container.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MIB = 1 << 20, ALLOCATION_FAILED = 3, NOT_YET = 3 };

#ifdef __wasm__
enum { WASM_PAGE = 64 << 10 };

// one_mib returns a fresh MiB of memory, or NULL if the host refuses.
static volatile char *one_mib(void) {
	long page = __builtin_wasm_memory_grow(0, MIB / WASM_PAGE);
	return page < 0 ? NULL : (char *)(uintptr_t)((uint32_t)page * (uint32_t)WASM_PAGE);
}
#else
#include <signal.h>
#include <sys/mman.h>

static volatile char *one_mib(void) {
	void *start = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return start == MAP_FAILED ? NULL : start;
}

// A signal ends the first process of a pid namespace only if the process handles it.
static void end_by_signal(int number) { _exit(128 + number); }

__attribute__((constructor)) static void handle_signals(void) {
	signal(SIGTERM, end_by_signal);
	signal(SIGINT, end_by_signal);
}
#endif

static int failed(const char *operation, const char *object) {
	fprintf(stderr, "%s %s: %s\n", operation, object, strerror(errno));
	return 1;
}

static int copy(int from, int to, const char *name) {
	static char buffer[64 << 10];
	for (;;) {
		ssize_t got = read(from, buffer, sizeof buffer);
		if (got == 0)
			return 0;
		if (got < 0)
			return failed("read", name);
		for (ssize_t done = 0; done < got;) {
			ssize_t put = write(to, buffer + done, got - done);
			if (put < 0)
				return failed("write", name);
			done += put;
		}
	}
}

// exit CODE
static int do_exit(char **arg) { exit(atoi(arg[0])); }

// cat: copies stdin to stdout unchanged
static int do_cat(char **arg) {
	(void)arg;
	return copy(0, 1, "stdin");
}

// lines N: "line 1" to "line N" on stderr
static int do_lines(char **arg) {
	static char buffer[64 << 10];
	setvbuf(stderr, buffer, _IOFBF, sizeof buffer);
	for (long i = 1, n = atol(arg[0]); i <= n; i++)
		fprintf(stderr, "line %ld\n", i);
	return fflush(stderr) ? failed("write", "stderr") : 0;
}

static int do_env(char **arg) {
	(void)arg;
	for (char **entry = environ; *entry; entry++)
		puts(*entry);
	return 0;
}

// args …: each argument after the subcommand on a line of its own
static int do_args(char **arg) {
	for (; *arg; arg++)
		puts(*arg);
	return 0;
}

static int do_pwd(char **arg) {
	(void)arg;
	char path[4096];
	if (!getcwd(path, sizeof path))
		return failed("getcwd", ".");
	puts(path);
	return 0;
}

static int do_read(char **arg) {
	int fd = open(arg[0], O_RDONLY);
	return fd < 0 ? failed("open", arg[0]) : copy(fd, 1, arg[0]);
}

// part PATH OFFSET COUNT: prints bytes of a file, at most 64 KiB
static int do_part(char **arg) {
	static char buffer[64 << 10];
	int fd = open(arg[0], O_RDONLY);
	if (fd < 0)
		return failed("open", arg[0]);
	size_t count = strtoul(arg[2], NULL, 10);
	ssize_t got = pread(fd, buffer, count < sizeof buffer ? count : sizeof buffer, strtoll(arg[1], NULL, 10));
	if (got < 0)
		return failed("read", arg[0]);
	return fwrite(buffer, 1, got, stdout) == (size_t)got ? 0 : failed("write", "stdout");
}

// copy FROM TO
static int do_copy(char **arg) {
	int from = open(arg[0], O_RDONLY);
	if (from < 0)
		return failed("open", arg[0]);
	int to = open(arg[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (to < 0)
		return failed("open", arg[1]);
	return copy(from, to, arg[1]);
}

static int put_text(const char *path, const char *text, int flags) {
	int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);
	if (fd < 0)
		return failed("open", path);
	if (write(fd, text, strlen(text)) < 0)
		return failed("write", path);
	return close(fd) ? failed("close", path) : 0;
}

static int do_write(char **arg) { return put_text(arg[0], arg[1], O_TRUNC); }
static int do_append(char **arg) { return put_text(arg[0], arg[1], O_APPEND); }

static const char *kind(mode_t mode) {
	if (S_ISREG(mode))
		return "file";
	if (S_ISDIR(mode))
		return "directory";
	if (S_ISLNK(mode))
		return "symlink";
	if (S_ISCHR(mode))
		return "character-device";
	if (S_ISBLK(mode))
		return "block-device";
	return "other";
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// ls PATH: the names in it, sorted, one a line
static int do_ls(char **arg) {
	DIR *dir = opendir(arg[0]);
	if (!dir)
		return failed("opendir", arg[0]);
	size_t count = 0;
	char **names = NULL;
	struct dirent *entry;
	errno = 0;
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		names = realloc(names, (count + 1) * sizeof *names);
		names[count++] = strdup(entry->d_name);
	}
	if (errno)
		return failed("readdir", arg[0]);
	qsort(names, count, sizeof *names, by_name);
	for (size_t i = 0; i < count; i++)
		puts(names[i]);
	return 0;
}

// stat PATH: "KIND SIZE", symbolic links not followed
static int do_stat(char **arg) {
	struct stat s;
	if (lstat(arg[0], &s))
		return failed("stat", arg[0]);
	printf("%s %lld\n", kind(s.st_mode), (long long)s.st_size);
	return 0;
}

static int do_mkdir(char **arg) { return mkdir(arg[0], 0755) ? failed("mkdir", arg[0]) : 0; }
static int do_rm(char **arg) { return remove(arg[0]) ? failed("rm", arg[0]) : 0; }

// symlink TARGET PATH
static int do_symlink(char **arg) { return symlink(arg[0], arg[1]) ? failed("symlink", arg[1]) : 0; }

// link EXISTING PATH
static int do_link(char **arg) { return link(arg[0], arg[1]) ? failed("link", arg[1]) : 0; }
static int do_rename(char **arg) { return rename(arg[0], arg[1]) ? failed("rename", arg[0]) : 0; }

static int do_readlink(char **arg) {
	char target[4096];
	ssize_t length = readlink(arg[0], target, sizeof target - 1);
	if (length < 0)
		return failed("readlink", arg[0]);
	target[length] = 0;
	puts(target);
	return 0;
}

static int sleep_for(const char *seconds) {
	double wanted = atof(seconds);
	struct timespec rest = {.tv_sec = (time_t)wanted, .tv_nsec = (long)((wanted - (time_t)wanted) * 1e9)};
	return nanosleep(&rest, NULL) ? failed("sleep", seconds) : 0;
}

// grow [MIB [SECONDS]]: grows memory by MIB MiB, or without end, and writes to every page of it,
// then sleeps. Prints "grew N MiB"; exits with 3 when the host refuses more memory.
static int do_grow(char **arg) {
	long limit = arg[0] ? atol(arg[0]) : 1 << 20;
	for (long grown = 0; grown < limit; grown++) {
		volatile char *start = one_mib();
		if (!start) {
			printf("grew %ld MiB\n", grown);
			return ALLOCATION_FAILED;
		}
		for (long offset = 0; offset < MIB; offset += 4096)
			start[offset] = 1;
	}
	printf("grew %ld MiB\n", limit);
	fflush(stdout);
	return arg[0] && arg[1] ? sleep_for(arg[1]) : 0;
}

// fill PATH: writes until the host refuses, then prints how much was written: "filled N KiB: REASON"
static int do_fill(char **arg) {
	static char block[64 << 10];
	memset(block, 'x', sizeof block);
	int fd = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return failed("open", arg[0]);
	for (long long written = 0;;) {
		ssize_t put = write(fd, block, sizeof block);
		if (put < 0) {
			printf("filled %lld KiB: %s\n", written >> 10, strerror(errno));
			return 1;
		}
		written += put;
	}
}

// loop: prints "looping", then burns CPU for ever
static int do_loop(char **arg) {
	(void)arg;
	puts("looping");
	fflush(stdout);
	for (;;)
		__asm__ volatile("");
}

// sleep SECONDS [PATH TEXT]: prints "sleeping" first, with TEXT in the file at that time; "awake"
// afterwards
static int do_sleep(char **arg) {
	if (arg[1] && arg[2] && put_text(arg[1], arg[2], O_TRUNC))
		return 1;
	puts("sleeping");
	fflush(stdout);
	int status = sleep_for(arg[0]);
	if (!status)
		puts("awake");
	return status;
}

static int holds(const char *path, const char *text) {
	static char buffer[4096];
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	ssize_t got = read(fd, buffer, sizeof buffer - 1);
	close(fd);
	if (got < 0)
		return 0;
	buffer[got] = 0;
	return !text || !strcmp(buffer, text);
}

// await PATH [TEXT]: returns when the file exists and, with TEXT, contains exactly TEXT
static int do_await(char **arg) {
	while (!holds(arg[0], arg[1])) {
		struct timespec rest = {.tv_nsec = 20 * 1000 * 1000};
		nanosleep(&rest, NULL);
	}
	return 0;
}

// tries PATH N: counts its runs in the file and exits with 3 until it is the Nth
static int do_tries(char **arg) {
	if (put_text(arg[0], "x", O_APPEND))
		return 1;
	struct stat s;
	if (stat(arg[0], &s))
		return failed("stat", arg[0]);
	printf("try %lld\n", (long long)s.st_size);
	return s.st_size < atol(arg[1]) ? NOT_YET : 0;
}

// say TEXT: prints it
static int do_say(char **arg) {
	puts(arg[0]);
	return fflush(stdout) ? failed("write", "stdout") : 0;
}

static int do_trap(char **arg) {
	(void)arg;
	__builtin_trap();
}

static int descend(int depth);
static int (*volatile again)(int) = descend;
static int descend(int depth) { return again(depth + 1) + depth; }

// deep: recurses until the call stack is exhausted
static int do_deep(char **arg) {
	(void)arg;
	return descend(0);
}

#ifdef __wasm__
__attribute__((export_name("other"))) void other(void) {
	puts("other function");
	fflush(stdout);
}
#endif

static const struct {
	const char *name;
	int least; // the minimum number of arguments
	int (*run)(char **arg);
} commands[] = {
	{"append", 2, do_append}, {"args", 0, do_args},     {"await", 1, do_await},     {"cat", 0, do_cat},
	{"copy", 2, do_copy},     {"deep", 0, do_deep},     {"env", 0, do_env},         {"exit", 1, do_exit},
	{"fill", 1, do_fill},     {"grow", 0, do_grow},     {"lines", 1, do_lines},     {"link", 2, do_link},
	{"loop", 0, do_loop},     {"ls", 1, do_ls},         {"mkdir", 1, do_mkdir},     {"part", 3, do_part},
	{"pwd", 0, do_pwd},
	{"read", 1, do_read},     {"readlink", 1, do_readlink}, {"rename", 2, do_rename}, {"rm", 1, do_rm},
	{"say", 1, do_say},       {"sleep", 1, do_sleep},   {"stat", 1, do_stat},       {"symlink", 2, do_symlink},
	{"trap", 0, do_trap},     {"tries", 2, do_tries},   {"write", 2, do_write},
};

static int run(int argc, char **argv) {
	for (size_t i = 0; argc > 0 && i < sizeof commands / sizeof *commands; i++) {
		if (!strcmp(argv[0], commands[i].name) && argc - 1 >= commands[i].least)
			return commands[i].run(argv + 1);
	}
	fprintf(stderr, "usage: probe SUBCOMMAND [ARGUMENT]… [, SUBCOMMAND …], got %d arguments\n", argc);
	return 2;
}

int main(int argc, char **argv) {
	int status = 0;
	for (int first = 1, end; !status && first <= argc; first = end + 1) {
		for (end = first; end < argc && strcmp(argv[end], ","); end++)
			;
		argv[end] = NULL; // already NULL after the last argument
		status = run(end - first, argv + first);
		fflush(stdout);
	}
	return status;
}
