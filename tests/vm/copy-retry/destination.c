// SPDX-License-Identifier: GPL-2.0-only
/* The destination of the copy: the kinds of memory, and who it is registered with. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "copy_retry.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB	4U
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM	(1 << 12)
#endif

const struct kind kinds[] = {
	{ "anon", NO_FILE, MAP_PRIVATE | MAP_ANONYMOUS, MADV_NOHUGEPAGE },
	{ "thp", NO_FILE, MAP_PRIVATE | MAP_ANONYMOUS, MADV_HUGEPAGE },
	{ "anon-shared", NO_FILE, MAP_SHARED | MAP_ANONYMOUS, MADV_NOHUGEPAGE },
	{ "shmem", MEMFD, MAP_SHARED, MADV_NOHUGEPAGE },
	{ "shmem-private", MEMFD, MAP_PRIVATE, MADV_NOHUGEPAGE },
	{ "hugetlb-anon", NO_FILE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, 0 },
	{ "hugetlb-anon-shared", NO_FILE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, 0 },
	{ "hugetlb", HUGE_MEMFD, MAP_SHARED, 0 },
	{ "hugetlb-private", HUGE_MEMFD, MAP_PRIVATE, 0 },
	{ NULL, NO_FILE, 0, 0 },
};

struct mapping now = { NULL, -1, -1 };
int first_file = -1;
int uffd, uffd_events, uffd_third;

int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = CHECK(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));

	CHECK(ioctl(fd, UFFDIO_API, &api));
	return fd;
}

/* With SIGBUS for an answer, no touch of the destination waits. */
void open_uffds(void)
{
	__u64 features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			 UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS |
			 UFFD_FEATURE_MINOR_SHMEM;

	uffd = open_uffd(features);
	uffd_third = open_uffd(features);
	uffd_events = open_uffd(features | UFFD_FEATURE_EVENT_REMOVE);
}

int try_register(int fd, char *at, size_t len, __u64 modes)
{
	struct uffdio_register reg = { .range = { (unsigned long)at, len }, .mode = modes };

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

void unregister(char *at, size_t len)
{
	struct uffdio_range range = { (unsigned long)at, len };

	ioctl(now.uffd, UFFDIO_UNREGISTER, &range);	/* of what is not mapped any more it is EINVAL */
}

void watch(int fd, __u64 modes)
{
	CHECK(try_register(fd, DESTINATION, LEN, modes));
	now.uffd = fd;
}

void map(const struct kind *kind, int file, off_t offset, size_t len)
{
	CHECK(mmap(DESTINATION, len, PROT_READ | PROT_WRITE, kind->flags | MAP_FIXED, file, offset));
	if (kind->advice)
		CHECK(madvise(DESTINATION, len, kind->advice));
	now.kind = kind;
	now.file = file;
}

static int new_file(const struct kind *kind, size_t len)
{
	int fd = -1;

	if (kind->file != NO_FILE) {
		fd = CHECK(memfd_create(kind->name, kind->file == HUGE_MEMFD ? MFD_HUGETLB : 0));
		CHECK(ftruncate(fd, len));
	}
	return fd;
}

void begin_with(const struct kind *kind, int fd)
{
	first_file = new_file(kind, LEN);
	map(kind, first_file, 0, LEN);
	watch(fd, MISSING | WP);
}

void replace(const struct kind *kind, bool full)
{
	size_t i;

	CHECK(munmap(DESTINATION, LEN));
	map(kind, new_file(kind, LEN), 0, LEN);
	for (i = 0; full && i < LEN; i += sizeof(uint64_t))
		*(volatile uint64_t *)(DESTINATION + i) = ~0ULL;
	watch(uffd, MISSING | WP);
}

void clean_up(void)
{
	munmap(DESTINATION, 1UL << 30);
	munmap(ELSEWHERE, LEN);
	if (now.file >= 0 && now.file != first_file)
		close(now.file);
	if (first_file >= 0)
		close(first_file);
	now = (struct mapping){ NULL, -1, -1 };
	first_file = -1;
}
