// SPDX-License-Identifier: GPL-2.0-only
/*
 * The loops that the client is measured against, as a C programmer would write
 * them.  "batch PAGES": one UFFDIO_CONTINUE with MODE_WP per page.  "handler
 * PAGES": a thread resolves the minor faults of another.  Prints nanoseconds.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define API		_IOWR(0xAA, 0x3F, uint64_t[3])
#define REGISTER	_IOWR(0xAA, 0x00, uint64_t[4])
#define CONTINUE	_IOWR(0xAA, 0x07, uint64_t[4])

struct message { uint8_t event, unused[7]; uint64_t flags, address, thread; };

static int uffd, stop;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void *handle(void *nothing)
{
	struct pollfd polled[2] = { { .fd = uffd, .events = POLLIN }, { .fd = stop, .events = POLLIN } };
	struct message messages[16];

	for (;;) {
		if (poll(polled, 2, -1) < 0 || polled[1].revents)
			return nothing;
		ssize_t size = read(uffd, messages, sizeof(messages));

		for (ssize_t i = 0; i * (ssize_t)sizeof(*messages) < size; i++) {
			uint64_t words[4] = { messages[i].address & ~(PAGE - 1), PAGE, 0, 0 };

			if (ioctl(uffd, CONTINUE, words))
				err(1, "UFFDIO_CONTINUE");
		}
	}
}

int main(int argc, char **argv)
{
	const uint64_t pages = argc > 2 ? strtoul(argv[2], NULL, 0) : 0, one = 1;
	/* MINOR_SHMEM, WP_HUGETLBFS_SHMEM, PAGEFAULT_FLAG_WP */
	uint64_t api[3] = { 0xAA, 1 << 10 | 1 << 12 | 1 << 0, 0 };
	int file = memfd_create("pages", MFD_CLOEXEC);
	pthread_t thread;
	int64_t start;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (!pages || file < 0 || uffd < 0 || ftruncate(file, pages * PAGE) || ioctl(uffd, API, api))
		err(1, "setting up");
	char *region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	char *alias = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	if (region == MAP_FAILED || alias == MAP_FAILED)
		err(1, "mmap");
	for (uint64_t page = 0; page < pages; page++)
		*(volatile uint64_t *)(alias + page * PAGE) = page;
	uint64_t range[4] = { (uint64_t)region, pages * PAGE, 1 << 2 | 1 << 1, 0 };

	if (ioctl(uffd, REGISTER, range))
		err(1, "UFFDIO_REGISTER");
	if (!strcmp(argv[1], "batch")) {
		start = now();
		for (uint64_t page = 0; page < pages; page++) {
			uint64_t words[4] = { (uint64_t)region + page * PAGE, PAGE, 1 << 1, 0 };

			if (ioctl(uffd, CONTINUE, words))
				err(1, "UFFDIO_CONTINUE");
		}
		printf("%lld\n", (long long)(now() - start));
		return 0;
	}
	stop = eventfd(0, EFD_CLOEXEC);
	if (pthread_create(&thread, NULL, handle, NULL))
		err(1, "pthread_create");
	start = now();
	for (uint64_t page = 0; page < pages; page++)
		(void)*(volatile uint64_t *)(region + page * PAGE);
	printf("%lld\n", (long long)(now() - start));
	if (write(stop, &one, sizeof(one)) < 0)
		err(1, "eventfd");
	pthread_join(thread, NULL);
	return 0;
}
