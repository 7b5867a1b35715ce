// SPDX-License-Identifier: GPL-2.0-only
/* The copy, in a thread of its own, and its source, of which one page is held back by a userfaultfd. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "copy_retry.h"

char *source;

static int uffd_source;
static uint64_t missing[WORDS];		/* what the held page is to become */
static sem_t go, done;
static struct uffdio_copy request;
static int failed;

static void fill_page(uint64_t *page, size_t number)
{
	size_t i;

	for (i = 0; i < WORDS; i++)
		page[i] = 0x5eed000000000001ULL + number * WORDS + i;
}

static void *copier(void *unused)
{
	(void)unused;
	for (;;) {
		sem_wait(&go);
		failed = ioctl(now.uffd, UFFDIO_COPY, &request) ? errno : 0;
		sem_post(&done);
	}
	return NULL;
}

void start_copier(void)
{
	pthread_t thread;
	size_t page;

	uffd_source = open_uffd(0);
	source = (char *)CHECK(mmap((void *)(3UL << 32), LEN, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	CHECK(madvise(source, LEN, MADV_NOHUGEPAGE));
	for (page = 0; page < PAGES; page++)
		fill_page((uint64_t *)(source + page * PAGE), page);
	CHECK(sem_init(&go, 0, 0));
	CHECK(sem_init(&done, 0, 0));
	CHECK(-pthread_create(&thread, NULL, copier, NULL));
}

static void wait_for_the_fault(void)
{
	struct pollfd look = { .fd = uffd_source, .events = POLLIN };
	struct uffd_msg message;

	if (poll(&look, 1, PATIENCE) != 1 || read(uffd_source, &message, sizeof(message)) != sizeof(message)) {
		fprintf(stderr, "the copy did not stop at its source\n");
		exit(4);
	}
}

/* Returns when it has come to the page that is held back. */
void begin_copy(size_t held, __u64 mode)
{
	CHECK(madvise(source + held * PAGE, PAGE, MADV_DONTNEED));
	fill_page(missing, held);
	CHECK(try_register(uffd_source, source + held * PAGE, PAGE, MISSING));
	request = (struct uffdio_copy){ (unsigned long)DESTINATION, (unsigned long)source, LEN, mode, 0 };
	sem_post(&go);
	wait_for_the_fault();
}

/* Gives it that page; returns an errno, or 0. */
int end_copy(size_t held, long *result)
{
	struct uffdio_copy fill = { .src = (unsigned long)missing, .len = PAGE };
	struct uffdio_range one = { (unsigned long)source + held * PAGE, PAGE };
	struct timespec until;

	fill.dst = one.start;
	CHECK(ioctl(uffd_source, UFFDIO_COPY, &fill));
	CHECK(clock_gettime(CLOCK_REALTIME, &until));
	until.tv_sec += PATIENCE / 1000;
	if (sem_timedwait(&done, &until)) {
		fprintf(stderr, "the copy did not come to an end\n");
		exit(4);
	}
	CHECK(ioctl(uffd_source, UFFDIO_UNREGISTER, &one));
	*result = request.copy;
	return failed;
}
