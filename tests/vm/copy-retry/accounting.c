// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel counts: huge pages, pages of a file, and free pages. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy_retry.h"

#ifndef MADV_COLD
#define MADV_COLD	20
#endif

static long number_in(const char *file, const char *key)
{
	char text[8192], *at;
	int fd = CHECK(open(file, O_RDONLY));
	ssize_t size = CHECK(read(fd, text, sizeof(text) - 1));

	close(fd);
	text[size] = 0;
	at = strstr(text, key);
	return at ? strtol(at + strlen(key), NULL, 10) : 0;
}

struct pool pool(void)
{
	struct pool pool;

	pool.used = number_in("/proc/meminfo", "HugePages_Total:") - number_in("/proc/meminfo", "HugePages_Free:");
	pool.reserved = number_in("/proc/meminfo", "HugePages_Rsvd:");
	pool.surplus = number_in("/proc/meminfo", "HugePages_Surp:");
	return pool;
}

struct pool pool_since(struct pool before)
{
	struct pool since = pool();

	since.used -= before.used;
	since.reserved -= before.reserved;
	since.surplus -= before.surplus;
	return since;
}

long blocks(int file)
{
	struct stat status;

	if (file < 0)
		return -1;
	CHECK(fstat(file, &status));
	return status.st_blocks / 8;
}

static void write_to(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY);

	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			fprintf(stderr, "%s: %s\n", file, strerror(errno));
		close(fd);
	}
}

/* Free pages, those of the CPUs' own lists too. */
static long free_pages_now(void)
{
	static const char *const keys[] = { "pages free ", "              count:" };
	static char text[1 << 16];
	ssize_t size, more;
	long sum = 0;
	size_t key;
	char *at;
	int fd;

	write_to("/proc/sys/vm/stat_refresh", "1");
	fd = CHECK(open("/proc/zoneinfo", O_RDONLY));
	for (size = 0; (more = CHECK(read(fd, text + size, sizeof(text) - 1 - size))) > 0; size += more)
		;
	close(fd);
	text[size] = 0;
	for (key = 0; key < 2; key++)
		for (at = text; (at = strstr(at, keys[key])); at++)
			sum += strtol(at + strlen(keys[key]), NULL, 10);
	return sum;
}

/*
 * What was freed may be on its way still: to the LRU lists, or behind a grace period, as page tables are in newer kernels.
 * So wait for it, but only where something seems to be missing.
 */
long free_pages(long expected)
{
	static char *some;
	long found;
	int tries;

	if (!some)
		some = (char *)CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (tries = 0; tries < 50; tries++) {
		madvise(some, PAGE, MADV_COLD);	/* drains this CPU's list */
		found = free_pages_now();
		if (found >= expected)
			break;
		usleep(10000);
	}
	return found;
}
