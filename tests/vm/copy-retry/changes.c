// SPDX-License-Identifier: GPL-2.0-only
/* What may happen to the destination while the copy waits. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copy_retry.h"

#define MAP_1GB		(30 << 26)

static int nothing(void)
{
	return 0;
}

static int gone(void)
{
	return munmap(DESTINATION, LEN);
}

static int half_gone(void)
{
	return munmap(DESTINATION + HUGE, HUGE);
}

static int moved(void)
{
	/* 6.1 cannot move hugetlb mappings of less than what shares a page table; it says so. */
	return mremap(DESTINATION, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE) == MAP_FAILED;
}

static int mapped_again(void)
{
	if (now.file < 0)
		return 1;
	CHECK(munmap(DESTINATION, LEN));
	map(now.kind, now.file, 0, LEN);
	watch(uffd, MISSING | WP);
	return 0;
}

static int other_offset(void)
{
	if (now.file < 0)
		return 1;
	CHECK(munmap(DESTINATION, LEN));
	CHECK(ftruncate(now.file, LEN + HUGE));
	map(now.kind, now.file, HUGE, LEN);
	watch(uffd, MISSING | WP);
	return 0;
}

static int unregistered(void)
{
	unregister(DESTINATION, LEN);
	return 0;
}

int without_wp(void)
{
	unregister(DESTINATION, LEN);
	watch(uffd, MISSING);
	return 0;
}

static int only_wp(void)
{
	unregister(DESTINATION, LEN);
	watch(uffd, WP);
	return 0;
}

int only_minor(void)
{
	unregister(DESTINATION, LEN);
	if (try_register(uffd, DESTINATION, LEN, MINOR))
		return 1;
	now.uffd = uffd;
	return 0;
}

static int other_uffd(void)
{
	unregister(DESTINATION, LEN);
	watch(uffd_third, MISSING | WP);
	return 0;
}

static int read_only(void)
{
	return mprotect(DESTINATION, LEN, PROT_READ);
}

static int no_access(void)
{
	return mprotect(DESTINATION, LEN, PROT_NONE);
}

static int half_read_only(void)
{
	return mprotect(DESTINATION + HUGE, HUGE, PROT_READ);
}

static int empty(void)
{
	return now.file < 0 || ftruncate(now.file, 0);
}

static int half(void)
{
	return now.file < 0 || ftruncate(now.file, HUGE);
}

static int dropped(void)
{
	return madvise(DESTINATION, LEN, MADV_DONTNEED);
}

static int punched(void)
{
	return now.file < 0 || fallocate(now.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, LEN);
}

/* Whoever else reads the file is first: another mapping of it fills all pages. */
static int filled_elsewhere(void)
{
	char *at;
	size_t i;

	if (now.file < 0)
		return 1;
	at = (char *)CHECK(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, now.file, 0));
	for (i = 0; i < LEN; i += sizeof(uint64_t))
		*(volatile uint64_t *)(at + i) = ~0ULL;
	return munmap(at, LEN);
}

static int copied_already(void)
{
	struct uffdio_copy copy = { .dst = (unsigned long)DESTINATION, .len = LEN };
	uint64_t *full = (uint64_t *)CHECK(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	size_t i;

	for (i = 0; i < LEN / sizeof(*full); i++)
		full[i] = ~0ULL;
	/* Not what was there already. */
	for (i = 0; i < LEN; i += HUGE) {
		copy.dst = (unsigned long)DESTINATION + i;
		copy.src = (unsigned long)full + i;
		copy.len = HUGE;
		ioctl(uffd, UFFDIO_COPY, &copy);
	}
	munmap(full, LEN);
	return 0;
}

/* The address space counts as changing from the event until somebody reads it. */
static void *drop(void *unused)
{
	(void)unused;
	madvise(DESTINATION, LEN, MADV_DONTNEED);
	return NULL;
}

static pthread_t dropping;

int changing(void)
{
	struct pollfd look = { .events = POLLIN };

	look.fd = uffd_events;
	CHECK(-pthread_create(&dropping, NULL, drop, NULL));
	if (poll(&look, 1, PATIENCE) != 1)
		exit(4);
	return 0;
}

void end_changing(void)
{
	struct uffd_msg message;

	CHECK(read(uffd_events, &message, sizeof(message)));
	pthread_join(dropping, NULL);
}

int giant(void)
{
	void *at;

	CHECK(munmap(DESTINATION, LEN));
	at = mmap(DESTINATION, 1UL << 30, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_1GB | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (at == MAP_FAILED)
		return 1;
	now.file = -1;
	if (try_register(uffd, DESTINATION, 1UL << 30, MISSING | WP)) {
		munmap(DESTINATION, 1UL << 30);
		return 1;
	}
	now.uffd = uffd;
	return 0;
}

const struct change changes[] = {
	{ "nothing", nothing, false },
	{ "gone", gone, true },
	{ "half-gone", half_gone, true },
	{ "moved", moved, true },
	{ "mapped-again", mapped_again, false },
	{ "other-offset", other_offset, false },
	{ "unregistered", unregistered, false },
	{ "without-wp", without_wp, false },
	{ "only-wp", only_wp, false },
	{ "only-minor", only_minor, false },
	{ "other-uffd", other_uffd, false },
	{ "read-only", read_only, false },
	{ "no-access", no_access, false },
	{ "half-read-only", half_read_only, false },
	{ "empty", empty, false },
	{ "half", half, false },
	{ "dropped", dropped, false },
	{ "punched", punched, false },
	{ "filled-elsewhere", filled_elsewhere, false },
	{ "copied-already", copied_already, false },
	{ "changing", changing, false },
	{ "giant", giant, true },
	{ NULL, NULL, false },
};
