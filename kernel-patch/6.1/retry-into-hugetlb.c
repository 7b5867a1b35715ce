// SPDX-License-Identifier: GPL-2.0
/*
 * UFFDIO_COPY to anonymous memory, which is replaced by hugetlb memory while the ioctl sleeps on its source.
 *
 *	retry-into-hugetlb [ROUNDS]
 *
 * Linux 6.1 fills the new mapping, and leaks the page that it had allocated for the old one. A kernel that takes this
 * page for a huge one copies 511 pages that lie behind it, whatever they hold, to where the program can read them.
 * What a kernel may do is refuse, with an errno. The exit status is 0 if it does, or fills with the right content and
 * leaks nothing; 1 if a page is wrong; 3 if only memory is lost.
 *
 * Needs root and one free huge page of 2 MiB. Compile with -static -pthread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE (2UL << 20)
#define PAGE 4096UL
#define DEADLINE_MS 60000

static char *const dst = (char *)(1UL << 32);
static char *src;
static int of_dst, of_src;

static void need(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(2);
}

static int open_userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	need(fd >= 0, "userfaultfd");
	need(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

static void watch(int fd, char *start, unsigned long size)
{
	struct uffdio_register range = { .range = { (unsigned long)start, size }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	need(!ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
}

static void map(char **at, int flags)
{
	void *got = mmap(*at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	need(got != MAP_FAILED, "mmap");
	*at = got;
}

/* Returns 0 or an errno. */
static void *copy(void *nothing)
{
	struct uffdio_copy all = { .dst = (unsigned long)dst, .src = (unsigned long)src, .len = SIZE };

	(void)nothing;
	return ioctl(of_dst, UFFDIO_COPY, &all) ? (void *)(long)errno : NULL;
}

static long free_kib(void)
{
	char line[128];
	long kib = -1;
	FILE *file = fopen("/proc/meminfo", "r");

	need(!!file, "/proc/meminfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemFree: %ld kB", &kib) == 1)
			break;
	fclose(file);
	return kib;
}

/* The number of wrong pages, or -errno. */
static long try(void)
{
	static char content[PAGE] __attribute__((aligned(PAGE)));
	struct uffdio_copy rest = { .src = (unsigned long)content, .len = PAGE };
	struct pollfd fault;
	struct uffd_msg msg;
	pthread_t thread;
	char *at = dst;
	void *error;
	long wrong = 0;

	of_dst = open_userfaultfd();
	of_src = open_userfaultfd();
	memset(content, 'S', PAGE);
	src = NULL;
	map(&src, 0);
	need(!madvise(src, SIZE, MADV_NOHUGEPAGE), "madvise");
	memset(src + PAGE, 'S', SIZE - PAGE);
	watch(of_src, src, PAGE);
	map(&at, MAP_FIXED);
	need(!madvise(dst, SIZE, MADV_NOHUGEPAGE), "madvise");
	watch(of_dst, dst, SIZE);
	need(!pthread_create(&thread, NULL, copy, NULL), "pthread_create");

	/* It waits for the first page of the source, without mmap_lock. */
	fault = (struct pollfd){ .fd = of_src, .events = POLLIN };
	need(poll(&fault, 1, DEADLINE_MS) == 1, "no fault in the source");
	need(read(of_src, &msg, sizeof(msg)) == sizeof(msg), "read of the fault");
	need(!munmap(dst, SIZE), "munmap");
	map(&at, MAP_FIXED | MAP_HUGETLB);
	watch(of_dst, dst, SIZE);
	rest.dst = (unsigned long)src;
	need(!ioctl(of_src, UFFDIO_COPY, &rest), "UFFDIO_COPY to the source");
	need(!pthread_join(thread, &error), "pthread_join");

	if (!error)
		for (unsigned long i = 0; i < SIZE; i += PAGE)
			wrong += !!memcmp(dst + i, content, PAGE);
	munmap(dst, SIZE);
	munmap(src, SIZE);
	close(of_dst);
	close(of_src);
	return error ? -(long)error : wrong;
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 1, refused = 0, wrong = 0, before, lost;

	before = free_kib();
	/* A kernel that takes what is not there for a page soon ends: stop at the first that is wrong. */
	for (long i = 0; i < rounds && !wrong; i++) {
		long result = try();

		if (result < 0)
			refused++;
		else
			wrong += result;
		if (i == 0) {
			printf("%s\n", result < 0 ? strerror(-result) : "filled");
			before = free_kib(); /* What is allocated only once is so by now. */
		}
	}
	lost = before - free_kib();
	printf("%ld rounds: refused %ld; wrong pages %ld; lost %ld KiB\n", rounds, refused, wrong, lost);
	fflush(stdout);
	if (wrong)
		return 1;
	/* A page a round would be 4 KiB a round. A few rounds say nothing: the system uses memory, too. */
	return rounds >= 1000 && lost >= 2 * rounds ? 3 : 0;
}
