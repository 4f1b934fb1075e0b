// files does each of a program's usual operations on files many times, in the empty folder that its argument
// names, and prints "NANOSECONDS NAME" for one of each: the least mean of some rounds, because a machine has
// other work, too.

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

enum { ROUNDS = 30, TIMES = 200, SMALL_FILES = 50, ENTRIES = 3000, BLOCK = 4096 };

static char block[BLOCK], path[300];
static int fd;

static void must(int good, const char *what) {
	if (good)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *name(const char *folder, const char *kind, int i) {
	snprintf(path, sizeof path, "%s/%s-%d", folder, kind, i);
	return path;
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// MANY makes a function that does an operation many times.
#define MANY(function, good) \
	static void function(const char *file) { \
		struct stat s; \
		(void)file, (void)s; \
		for (int i = 0; i < TIMES; i++) \
			must(good, #function); \
	}
MANY(pread_byte, pread(fd, block, 1, 0) == 1)
MANY(pread_block, pread(fd, block, BLOCK, 0) == BLOCK)
MANY(pwrite_byte, pwrite(fd, block, 1, 0) == 1)
MANY(pwrite_block, pwrite(fd, block, BLOCK, 0) == BLOCK)
MANY(seek, lseek(fd, 0, SEEK_SET) == 0)
MANY(fstat_open, fstat(fd, &s) == 0)
MANY(stat_path, stat(file, &s) == 0)
MANY(open_close, close(open(file, O_RDONLY)) == 0)

// measure prints the least mean time of a function that does so many operations.
static void measure(const char *what, void (*operations)(const char *), int count, const char *file) {
	int64_t least = INT64_MAX;
	for (int i = 0; i < ROUNDS; i++) {
		int64_t begun = now();
		operations(file);
		int64_t took = now() - begun;
		if (took < least)
			least = took;
	}
	printf("%lld %s\n", (long long)least / count, what);
}

// A job over small files: each is written, read and removed.
static void small_files(const char *folder) {
	for (int i = 0; i < SMALL_FILES; i++) {
		int file = open(name(folder, "small", i), O_CREAT | O_WRONLY | O_TRUNC, 0666);
		must(file >= 0 && write(file, block, 100) == 100 && close(file) == 0, path);
	}
	for (int i = 0; i < SMALL_FILES; i++) {
		int file = open(name(folder, "small", i), O_RDONLY);
		must(file >= 0 && read(file, block, BLOCK) == 100 && close(file) == 0, path);
	}
	for (int i = 0; i < SMALL_FILES; i++)
		must(unlink(name(folder, "small", i)) == 0, path);
}

static void list(const char *folder) {
	int entries = 0;
	DIR *dir = opendir(folder);
	must(dir != NULL, folder);
	while (readdir(dir) != NULL)
		entries++;
	must(closedir(dir) == 0 && entries == ENTRIES + 3, folder);
}

static void measure_list(const char *folder) {
	for (int i = 0; i < ENTRIES; i++) {
		int file = open(name(folder, "entry", i), O_CREAT | O_WRONLY, 0666);
		must(file >= 0 && close(file) == 0, path);
	}
	measure("a folder of 3,000 entries", list, 1, folder);
	for (int i = 0; i < ENTRIES; i++)
		must(unlink(name(folder, "entry", i)) == 0, path);
}

int main(int argc, char **argv) {
	static char file[300];
	if (argc != 2)
		return 2;
	snprintf(file, sizeof file, "%s/file", argv[1]);
	fd = open(file, O_CREAT | O_RDWR, 0666);
	must(fd >= 0 && pwrite(fd, block, BLOCK, 0) == BLOCK, file);
	measure("pread, 1 byte", pread_byte, TIMES, file);
	measure("pread, 4 KiB", pread_block, TIMES, file);
	measure("pwrite, 1 byte", pwrite_byte, TIMES, file);
	measure("pwrite, 4 KiB", pwrite_block, TIMES, file);
	measure("seek", seek, TIMES, file);
	measure("fstat", fstat_open, TIMES, file);
	measure("stat", stat_path, TIMES, file);
	measure("open and close", open_close, TIMES, file);
	measure("a small file written, read and removed", small_files, SMALL_FILES, argv[1]);
	measure_list(argv[1]);
	must(unlink(file) == 0, file);
	return 0;
}
