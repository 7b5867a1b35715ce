// SPDX-License-Identifier: GPL-2.0
/*
 * Does /dev/pte_reader tell the truth? Compares it with /proc/PID/pagemap on
 * pages of every kind, provokes each error, and reads while mappings come and
 * go. TAP on stdout; exits 1 when a test fails.
 *
 * x86-64 only. Needs root, and for all tests: swap (test skipped without), two
 * 2 MiB hugetlb pages and one of 1 GiB.
 *
 *	cc -O2 -Wall -Wextra -static -pthread -Iinclude/uapi pte_reader_test.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/pte_reader.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT		26
#endif
#define MAP_HUGE_1GIB		(30 << MAP_HUGE_SHIFT)

#define PAGE			4096UL
#define MIB			(1UL << 20)

#define X86_PRESENT		(1ULL << 0)
#define X86_WRITE		(1ULL << 1)
#define X86_PSE			(1ULL << 7)
#define X86_FRAME		0x000ffffffffff000ULL

#define PM_PRESENT		(1ULL << 63)
#define PM_SWAP			(1ULL << 62)
#define PM_PFN			((1ULL << 55) - 1)

static int device, tests, failed;

static void report(bool ok, const char *name, const char *directive)
{
	printf("%sok %d - %s%s\n", ok ? "" : "not ", ++tests, name, directive);
	fflush(stdout);
	if (!ok)
		failed++;
}

static void check(bool ok, const char *name)
{
	report(ok, name, "");
}

static void skip(const char *name, const char *why)
{
	char directive[80];

	snprintf(directive, sizeof(directive), " # SKIP %s", why);
	report(true, name, directive);
}

static int read_entries(pid_t pid, uint64_t start, uint64_t count,
			uint64_t stride, struct pte_reader_entry *entries)
{
	struct pte_reader_request request = {
		.pid = pid,
		.start = start,
		.count = count,
		.stride = stride,
		.entries = (uintptr_t)entries,
	};

	return ioctl(device, PTE_READER_READ, &request) ? errno : 0;
}

static struct pte_reader_entry entry_at(const void *addr)
{
	struct pte_reader_entry entry = { .level = 99 };

	if (read_entries(getpid(), (uintptr_t)addr & ~(PAGE - 1), 1, 0, &entry))
		entry.level = 99;
	return entry;
}

static uint64_t pagemap_at(const void *addr)
{
	uint64_t word = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (pread(fd, &word, sizeof(word), (uintptr_t)addr / PAGE * 8) != 8)
		word = 0;
	close(fd);
	return word;
}

/* The frame that contains addr, as the entry has it */
static uint64_t frame(struct pte_reader_entry entry, const void *addr)
{
	uint64_t inside = entry.level == 3 ? (1ULL << 30) - 1 :
			  entry.level == 2 ? 2 * MIB - 1 : PAGE - 1;

	return ((entry.entry & X86_FRAME & ~inside) |
		((uintptr_t)addr & inside)) / PAGE;
}

static char *map(size_t size, int flags)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static void test_small_pages(void)
{
	struct pte_reader_entry entry, many[600];
	char *at = map(600 * PAGE, 0);
	bool same = true;
	int i;

	madvise(at, 600 * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < 600; i += 2)
		at[i * PAGE] = 1;
	entry = entry_at(at);
	check(entry.level == 1 && (entry.entry & X86_PRESENT) &&
	      (entry.entry & X86_WRITE), "a written page is writable, level 1");
	check(frame(entry, at) == (pagemap_at(at) & PM_PFN),
	      "its frame is the one in pagemap");
	entry = entry_at(at + PAGE);
	check(!entry.entry && entry.level >= 1 && entry.level <= 5,
	      "an untouched page has an empty entry");
	mprotect(at, PAGE, PROT_READ);
	check(!(entry_at(at).entry & X86_WRITE), "mprotect takes the write bit");

	if (read_entries(getpid(), (uintptr_t)at, 600, 0, many))
		same = false;
	for (i = 0; same && i < 600; i++)
		same = !!(many[i].entry & X86_PRESENT) == !(i & 1) &&
		       !many[i].reserved;
	check(same, "600 pages, every other one present");
	if (read_entries(getpid(), (uintptr_t)at, 300, 2 * PAGE, many))
		same = false;
	for (i = 0; same && i < 300; i++)
		same = many[i].entry & X86_PRESENT;
	check(same, "with a stride of two pages all are present");

	munmap(at, 600 * PAGE);
	entry = entry_at(at);
	check(entry.level == 0 && !entry.entry, "no mapping, level 0");
}

static void test_transparent_huge_page(void)
{
	char *at = map(4 * MIB, 0);
	char *huge = (char *)(((uintptr_t)at + 2 * MIB - 1) & ~(2 * MIB - 1));
	struct pte_reader_entry entry;

	madvise(huge, 2 * MIB, MADV_HUGEPAGE);
	*huge = 1;
	entry = entry_at(huge);
	if (entry.level == 2)
		check((entry.entry & X86_PSE) && (entry.entry & X86_WRITE) &&
		      frame(entry, huge) == (pagemap_at(huge) & PM_PFN) &&
		      entry_at(huge + 5 * PAGE).entry == entry.entry,
		      "a transparent huge page is a level 2 entry");
	else
		skip("a transparent huge page is a level 2 entry", "got none");
	mprotect(huge, PAGE, PROT_READ);
	check(entry_at(huge).level == 1 && entry_at(huge + PAGE).level == 1,
	      "after the split the entries are at level 1");
	munmap(at, 4 * MIB);
}

static void test_hugetlb(const char *name, size_t size, int flags,
			 unsigned int level)
{
	char *at = map(2 * size, MAP_HUGETLB | flags | MAP_NORESERVE);
	struct pte_reader_entry entry, two[2];

	if (!at) {
		skip(name, "no such hugetlb pages");
		return;
	}
	/* Without a free page this would be SIGBUS; madvise() tells instead */
	if (madvise(at, size, 23 /* MADV_POPULATE_WRITE */)) {
		skip(name, "no such hugetlb pages");
		munmap(at, 2 * size);
		return;
	}
	entry = entry_at(at);
	check(entry.level == level && (entry.entry & X86_PSE) &&
	      frame(entry, at) == (pagemap_at(at) & PM_PFN) &&
	      !read_entries(getpid(), (uintptr_t)at, 2, size, two) &&
	      two[0].entry == entry.entry && !two[1].entry, name);
	munmap(at, 2 * size);
}

static void test_swap(void)
{
	const char *name = "a swapped page has a swap entry";
	char *at = map(PAGE, 0);
	struct pte_reader_entry entry;

	*at = 1;
	madvise(at, PAGE, MADV_PAGEOUT);
	if (!(pagemap_at(at) & PM_SWAP)) {
		skip(name, "page not swapped out");
	} else {
		entry = entry_at(at);
		check(entry.level == 1 && entry.entry &&
		      !(entry.entry & X86_PRESENT), name);
	}
	munmap(at, PAGE);
}

static void test_other_process(void)
{
	char *at = map(PAGE, 0);
	struct pte_reader_entry entry, own;
	int pipes[2];
	pid_t pid;
	char c;

	*at = 1;
	if (pipe(pipes))
		exit(2);
	pid = fork();
	if (!pid) {
		*at = 2;
		if (write(pipes[1], "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	if (read(pipes[0], &c, 1) != 1)
		exit(2);
	own = entry_at(at);
	check(!read_entries(pid, (uintptr_t)at, 1, 0, &entry) &&
	      (entry.entry & X86_PRESENT) && frame(entry, at) != frame(own, at),
	      "another process has its own page at the same address");
	kill(pid, SIGKILL);
	siginfo_t info;

	waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
	check(read_entries(pid, (uintptr_t)at, 1, 0, &entry) == ESRCH,
	      "a zombie is ESRCH");
	waitpid(pid, NULL, 0);
	check(read_entries(pid, (uintptr_t)at, 1, 0, &entry) == ESRCH,
	      "a process that has gone is ESRCH");
	munmap(at, PAGE);
}

static void test_exit_meanwhile(void)
{
	static struct pte_reader_entry entries[PTE_READER_MAX_COUNT];
	int i, result, seen = 0, other = 0;

	for (i = 0; i < 20; i++) {
		struct timespec wait = { .tv_nsec = i * 1000000 };
		char *at = map(64 * MIB, MAP_NORESERVE);
		pid_t pid = fork();

		if (!pid) {
			nanosleep(&wait, NULL);
			_exit(0);
		}
		while (!(result = read_entries(pid, (uintptr_t)at, 16384, 0,
					       entries)))
			;
		if (result == ESRCH)
			seen++;
		else
			other++;
		waitpid(pid, NULL, 0);
		munmap(at, 64 * MIB);
	}
	check(seen == 20 && !other, "a process that exits meanwhile is ESRCH");
}

static void test_errors(void)
{
	struct pte_reader_entry entry;
	struct pte_reader_request request = {
		.pid = getpid(),
		.flags = 1,
		.start = PAGE,
		.count = 1,
		.entries = (uintptr_t)&entry,
	};
	uint64_t top = 0x7ffffffff000;
	pid_t pid = getpid();
	int status;

	check(ioctl(device, PTE_READER_READ, &request) && errno == EINVAL,
	      "unknown flags are EINVAL");
	check(read_entries(pid, PAGE, 0, 0, &entry) == EINVAL,
	      "no pages are EINVAL");
	check(read_entries(pid, PAGE + 1, 1, 0, &entry) == EINVAL,
	      "an unaligned start is EINVAL");
	check(read_entries(pid, PAGE, 1, 100, &entry) == EINVAL,
	      "an unaligned stride is EINVAL");
	check(read_entries(pid, 0xffffffff81000000, 1, 0, &entry) == EINVAL,
	      "a kernel address is EINVAL");
	check(read_entries(pid, top, 1 << 20, 1UL << 40, &entry) == EINVAL,
	      "a range that leaves user space is EINVAL");
	check(read_entries(pid, PAGE, 1 << 20, 1UL << 63, &entry) == EINVAL,
	      "a range that wraps is EINVAL");
	check(read_entries(pid, PAGE, PTE_READER_MAX_COUNT + 1ULL, 0,
			   &entry) == E2BIG, "too many pages are E2BIG");
	check(read_entries(pid, PAGE, ~0ULL, 0, &entry) == E2BIG,
	      "far too many pages are E2BIG");
	check(read_entries(pid, PAGE, 1, 0, NULL) == EFAULT,
	      "no buffer is EFAULT");
	check(ioctl(device, PTE_READER_READ, NULL) && errno == EFAULT,
	      "no request is EFAULT");
	check(ioctl(device, _IO(0xBB, 0x7f), 0) && errno == ENOTTY,
	      "an unknown command is ENOTTY");
	check(read_entries(0, PAGE, 1, 0, &entry) == ESRCH &&
	      read_entries(-1, PAGE, 1, 0, &entry) == ESRCH,
	      "no such pid is ESRCH");
	check(read_entries(2, PAGE, 1, 0, &entry) == ESRCH,
	      "a kernel thread is ESRCH");

	pid = fork();
	if (!pid) {
		if (setuid(65534))
			_exit(2);
		_exit(read_entries(getpid(), PAGE, 1, 0, &entry) != EPERM ||
		      open("/dev/pte_reader", O_RDONLY) >= 0);
	}
	waitpid(pid, &status, 0);
	check(WIFEXITED(status) && !WEXITSTATUS(status),
	      "without CAP_SYS_ADMIN it is EPERM, and the device is not opened");
}

/* Mappings come, go, are huge and small, while they are read */
static char *arena;
static volatile bool stop;
#define ARENA	(16 * MIB)

static void *churn(void *arg)
{
	char *half = arg;
	unsigned long round;

	for (round = 0; !stop; round++) {
		char *at = half + (round % 4) * 2 * MIB;

		mmap(at, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		     MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		madvise(at, 2 * MIB, round & 4 ? MADV_HUGEPAGE :
						 MADV_NOHUGEPAGE);
		at[0] = 1;
		at[MIB] = 1;
		madvise(at, 2 * MIB, 25 /* MADV_COLLAPSE */);
		madvise(at + MIB, PAGE, MADV_DONTNEED);
		if (round & 8)
			munmap(at, 2 * MIB);
	}
	return NULL;
}

static void test_churn(int seconds)
{
	static struct pte_reader_entry entries[ARENA / PAGE];
	pthread_t threads[2];
	unsigned long reads = 0, huge = 0, i;
	bool ok = true;
	time_t end;

	arena = mmap((void *)(1UL << 32), ARENA, PROT_NONE, MAP_PRIVATE |
		     MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, churn,
				   arena + i * ARENA / 2))
			exit(2);
	for (end = time(NULL) + seconds; time(NULL) < end; reads++) {
		if (read_entries(getpid(), (uintptr_t)arena, ARENA / PAGE, 0,
				 entries))
			ok = false;
		for (i = 0; i < ARENA / PAGE; i++) {
			if (entries[i].level > 5 || entries[i].reserved)
				ok = false;
			/* User pages or nothing: no stray table was followed */
			if (entries[i].level == 1 &&
			    (entries[i].entry & X86_PRESENT) &&
			    !(entries[i].entry & 4))
				ok = false;
			huge += entries[i].level == 2 &&
				(entries[i].entry & X86_PSE);
		}
	}
	stop = true;
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("# %lu reads of %lu pages, %lu entries of huge pages\n", reads,
	       ARENA / PAGE, huge);
	check(ok && reads, "reading while mappings come and go");
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 5;

	device = open("/dev/pte_reader", O_RDONLY | O_CLOEXEC);
	if (device < 0) {
		printf("1..0 # SKIP /dev/pte_reader: %s\n", strerror(errno));
		return 4;
	}
	printf("TAP version 13\n");
	test_small_pages();
	test_transparent_huge_page();
	test_hugetlb("a 2 MiB hugetlb page is a level 2 entry", 2 * MIB, 0, 2);
	test_hugetlb("a 1 GiB hugetlb page is a level 3 entry", 1024 * MIB,
		     MAP_HUGE_1GIB, 3);
	test_swap();
	test_other_process();
	test_exit_meanwhile();
	test_errors();
	test_churn(seconds);
	printf("1..%d\n", tests);

	return failed != 0;
}
