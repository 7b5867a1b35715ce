// SPDX-License-Identifier: GPL-2.0
/*
 * How many instructions it takes to fill a page, as the init of a kernel in QEMU with -icount: then the TSC counts
 * instructions. check-series runs it. Compile with -static.
 *
 * Prints the least of some rounds, divided by the number of pages; it includes the system call.
 */
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define PAGES 1024UL
#define ROUNDS 8

enum kind { CONTINUE, CONTINUE_EACH, COPY, ZEROPAGE, KINDS };

static const char *const names[KINDS] = { "continue", "continue-each", "copy", "zeropage" };
static int uffd, file;
static char *source;

static void need(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	reboot(RB_POWER_OFF);
	exit(1);
}

static uint64_t now(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static int fill(enum kind kind, unsigned long start, unsigned long size)
{
	struct uffdio_continue map = { .range = { start, size } };
	struct uffdio_copy copy = { .dst = start, .src = (unsigned long)source, .len = size };
	struct uffdio_zeropage zero = { .range = { start, size } };

	if (kind == COPY)
		return ioctl(uffd, UFFDIO_COPY, &copy);
	if (kind == ZEROPAGE)
		return ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
	return ioctl(uffd, UFFDIO_CONTINUE, &map);
}

static uint64_t once(enum kind kind)
{
	int minor = kind == CONTINUE || kind == CONTINUE_EACH;
	unsigned long step = kind == CONTINUE_EACH ? PAGE : PAGES * PAGE, done;
	char *to = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, minor ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
			minor ? file : -1, 0);
	struct uffdio_register reg = {
		.range = { (unsigned long)to, PAGES * PAGE },
		.mode = minor ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING,
	};
	uint64_t started, ended;

	need(to != MAP_FAILED, "mmap");
	need(!madvise(to, PAGES * PAGE, MADV_NOHUGEPAGE) || minor, "madvise");
	need(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	started = now();
	for (done = 0; done < PAGES * PAGE; done += step)
		if (fill(kind, (unsigned long)to + done, step))
			need(0, names[kind]);
	ended = now();
	munmap(to, PAGES * PAGE);
	return ended - started;
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM };
	char *content;

	uffd = syscall(SYS_userfaultfd, 0);
	need(uffd >= 0, "userfaultfd");
	need(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
	source = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	file = syscall(SYS_memfd_create, "pages", 0);
	need(source != MAP_FAILED && file >= 0 && !ftruncate(file, PAGES * PAGE), "source");
	memset(source, 1, PAGES * PAGE);
	content = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	need(content != MAP_FAILED, "mmap");
	memset(content, 1, PAGES * PAGE);

	for (int kind = 0; kind < KINDS; kind++) {
		uint64_t least = UINT64_MAX;

		for (int round = 0; round < ROUNDS; round++) {
			uint64_t took = once(kind);

			if (took < least)
				least = took;
		}
		printf("INSTRUCTIONS %s %.1f\n", names[kind], (double)least / PAGES);
	}
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return 0;
}
