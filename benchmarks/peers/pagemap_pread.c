// SPDX-License-Identifier: GPL-2.0-only
/*
 * Peer of the witnesses: reads the pagemap entries of another process as fast as
 * C can, and prints how many ns each run took.  Links statically, so that it
 * runs in any guest.
 *
 *	pagemap_pread PID START PAGES RUNS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int main(int argc, char **argv)
{
	char path[64];
	size_t size;
	char *entries;
	int fd;

	if (argc != 5) {
		fprintf(stderr, "usage: %s PID START PAGES RUNS\n", argv[0]);
		return 2;
	}
	snprintf(path, sizeof(path), "/proc/%s/pagemap", argv[1]);
	fd = open(path, O_RDONLY);
	size = 8 * strtoull(argv[3], NULL, 0);
	entries = malloc(size);
	if (fd < 0 || !entries) {
		perror(path);
		return 1;
	}
	memset(entries, 1, size);	/* its own page faults must not be measured */
	for (int run = atoi(argv[4]); run > 0; run--) {
		const off_t from = strtoull(argv[2], NULL, 0) / 4096 * 8;
		const int64_t started = now();
		size_t done = 0;

		while (done < size) {
			const ssize_t part = pread(fd, entries + done, size - done, from + done);

			if (part <= 0) {
				perror("pread");
				return 1;
			}
			done += part;
		}
		printf("%lld\n", (long long)(now() - started));
	}
	return 0;
}
