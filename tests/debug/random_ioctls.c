// SPDX-License-Identifier: GPL-2.0-only
/*
 * random_ioctls SECONDS SEED: every userfaultfd ioctl with random flags and ranges, from several threads at once, while
 * others touch the pages and one answers the faults.  What comes back does not matter: the kernel must stay well.
 *
 * The memory at an address changes its kind now and then.  The source of UFFDIO_COPY is registered too, with another
 * userfaultfd, and its pages go away, so that the kernel has to drop its locks, and may find other memory afterwards.
 * Only three bytes are ever written, so a byte that is none of them belongs to other memory: exit status 3.
 *
 * A touch that takes over a second is withdrawn by a signal: some wait for an answer that never comes, and in 6.1 some
 * fault for ever (docs/findings/hugetlb-register.md).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif

#define HUGE	(2UL << 20)

enum { PAGES = 16, HUGE_PAGES = 4, CALLERS = 2, TOUCHERS = 2, THREADS = CALLERS + TOUCHERS + 2, KINDS = 5 };
enum { HOLE = 0, TOUCHED = 1, COPIED = 7 };	/* all bytes there are */

static struct arena {
	const char *name;
	int file;	/* mapped from one, shared or private */
	int sharing;
	size_t page;
	unsigned int pages;	/* that calls are made on */
	size_t size;	/* whole huge pages, so that all kinds fit */
	char *start;	/* registered */
	char *alias;	/* the same file pages, not registered; or none */
	int uffd;
	char *source;	/* what UFFDIO_COPY takes */
	int source_uffd;
	int files[KINDS];	/* of each kind that has one */
	unsigned long calls, done, faults, touches, signals, withdrawn, replaced, waited, foreign;
} arenas[KINDS] = {
	{ "anon", 0, MAP_PRIVATE, 4096 },
	{ "shmem", 1, MAP_SHARED, 4096 },
	{ "shmem-private", 1, MAP_PRIVATE, 4096 },
	{ "hugetlb", 1, MAP_SHARED, 2UL << 20 },
	{ "hugetlb-private", 1, MAP_PRIVATE, 2UL << 20 },
};

static volatile int stop;
static __thread sigjmp_buf trap;
static __thread volatile sig_atomic_t touching;
static __thread unsigned int state;

struct job {
	struct arena *arena;
	unsigned int seed;
	unsigned long touches, seen;	/* so far, and when main() looked last */
};

static unsigned int any(unsigned int below)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % below;
}

static void trapped(int number)
{
	siglongjmp(trap, number);
}

static void withdrawn(int number)
{
	if (touching)
		siglongjmp(trap, number);
}

/* One to four pages; once in a while a range that is none. */
static struct uffdio_range some_range(struct arena *arena)
{
	unsigned int first = any(arena->pages), count = 1 + any(4);
	struct uffdio_range range;

	if (first + count > arena->pages)
		count = arena->pages - first;
	range.start = (unsigned long)arena->start + first * arena->page;
	range.len = count * arena->page;
	if (any(64) == 0)
		range.start += any(2) ? 8 : arena->size;
	if (any(64) == 0)
		range.len = any(2) ? 0 : range.len + 8;
	/* What hugetlb takes, should it be there. */
	if (any(4) == 0) {
		range.start = (unsigned long)arena->start + any(2) * HUGE;
		range.len = HUGE;
	}
	return range;
}

static unsigned long source_size(struct arena *arena)
{
	return arena->page * 4 > HUGE ? arena->page * 4 : HUGE;
}

/* So that the next copy finds a page of its source missing, mostly the first. */
static void drop_source(struct arena *arena)
{
	unsigned long page = any(4) ? 0 : any(source_size(arena) / 4096);

	madvise(arena->source + page * 4096, 4096, MADV_DONTNEED);
}

static int answer(struct arena *arena, struct uffdio_range range)
{
	__u64 from = (unsigned long)arena->source;
	struct uffdio_copy copy = { range.start, from, range.len, any(4), 0 };
	struct uffdio_zeropage zero = { range, any(2), 0 };
	struct uffdio_continue cont = { range, any(4), 0 };
	struct uffdio_writeprotect protect = { range, any(4) };

	switch (any(5)) {
	case 0:
		if (any(2))
			drop_source(arena);
		return ioctl(arena->uffd, UFFDIO_COPY, &copy);
	case 1:
		return ioctl(arena->uffd, UFFDIO_ZEROPAGE, &zero);
	case 2:
		return ioctl(arena->uffd, UFFDIO_CONTINUE, &cont);
	case 3:
		return ioctl(arena->uffd, UFFDIO_WRITEPROTECT, &protect);
	default:
		return ioctl(arena->uffd, UFFDIO_WAKE, &range);
	}
}

static int map(struct arena *arena, int kind)
{
	int fd = arena->files[kind];
	void *at = mmap(arena->start, arena->size, PROT_READ | PROT_WRITE,
			arenas[kind].sharing | MAP_FIXED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	return at == MAP_FAILED ? -1 : 0;
}

static int replace(struct arena *arena, int kind)
{
	struct uffdio_register reg = { { (unsigned long)arena->start, arena->size }, 1 + any(7), 0 };

	if (map(arena, kind))
		return -1;
	__atomic_add_fetch(&arena->replaced, 1, __ATOMIC_RELAXED);
	if (any(4) == 0)
		madvise(arena->start, arena->size, MADV_HUGEPAGE);
	return any(8) ? ioctl(arena->uffd, UFFDIO_REGISTER, &reg) : 0;
}

static int change(struct arena *arena, struct uffdio_range range)
{
	struct uffdio_register reg = { range, any(8), 0 };
	char *there = (char *)(unsigned long)range.start;
	int inside = there >= arena->start && there + range.len <= arena->start + arena->size;
	pid_t child;

	if (any(8) == 0)
		return replace(arena, any(2) ? arena - arenas : any(KINDS));
	/* The kernel must refuse a range that is none; madvise and mprotect would take our own memory. */
	switch (any(inside ? 8 : 3)) {
	case 0:
	case 1:
		return ioctl(arena->uffd, UFFDIO_REGISTER, &reg);
	case 2:
		return ioctl(arena->uffd, UFFDIO_UNREGISTER, &range);
	case 3:
		return madvise(there, range.len, MADV_DONTNEED);
	case 4:
		if (!arena->alias || there - arena->start + range.len > arena->pages * arena->page)
			return madvise(there, range.len, any(2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		return madvise(arena->alias + (there - arena->start), range.len, MADV_REMOVE);
	case 5:
		return madvise(there, range.len, MADV_PAGEOUT);
	case 6:
		return mprotect(there, range.len, any(3) ? PROT_READ | PROT_WRITE : PROT_READ);
	default:
		if (any(8))
			return 0;
		child = fork();
		if (child == 0)
			_exit(0);
		return child < 0 ? -1 : waitpid(child, NULL, 0) < 0;
	}
}

static void *caller(void *argument)
{
	struct job *job = argument;
	struct arena *arena = job->arena;

	state = job->seed;
	while (!stop) {
		struct uffdio_range range = some_range(arena);
		int result = any(4) ? answer(arena, range) : change(arena, range);

		__atomic_add_fetch(&arena->calls, 1, __ATOMIC_RELAXED);
		if (result == 0)
			__atomic_add_fetch(&arena->done, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *toucher(void *argument)
{
	struct job *job = argument;
	struct arena *arena = job->arena;

	state = job->seed;
	while (!stop) {
		size_t offset = any(arena->pages) * arena->page + any(arena->page);
		volatile char *byte = (arena->alias && any(4) == 0 ? arena->alias : arena->start) + offset;

		int number = sigsetjmp(trap, 1);

		if (number) {
			touching = 0;
			__atomic_add_fetch(number == SIGUSR1 ? &arena->withdrawn : &arena->signals, 1, __ATOMIC_RELAXED);
			continue;
		}
		__atomic_add_fetch(&arena->touches, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&job->touches, 1, __ATOMIC_RELAXED);
		touching = 1;
		if (any(2)) {
			*byte = TOUCHED;
		} else {
			char found = *byte;

			if (found != HOLE && found != TOUCHED && found != COPIED)
				__atomic_add_fetch(&arena->foreign, 1, __ATOMIC_RELAXED);
		}
		touching = 0;
	}
	return NULL;
}

/* Whatever the answer was worth, the thread is woken, and faults again if it has to. */
static void *handler(void *argument)
{
	struct job *job = argument;
	struct arena *arena = job->arena;
	struct uffd_msg message;

	state = job->seed;
	while (!stop) {
		struct pollfd look = { arena->uffd, POLLIN, 0 };
		struct uffdio_range range = { 0, arena->page };

		if (poll(&look, 1, 50) <= 0 || read(arena->uffd, &message, sizeof(message)) != sizeof(message))
			continue;
		if (message.event != UFFD_EVENT_PAGEFAULT)
			continue;
		__atomic_add_fetch(&arena->faults, 1, __ATOMIC_RELAXED);
		range.start = message.arg.pagefault.address & ~(arena->page - 1);
		answer(arena, range);
		ioctl(arena->uffd, UFFDIO_WAKE, &range);
	}
	return NULL;
}

/* A copy waits for its source, while its destination becomes something else every other time. */
static void *feeder(void *argument)
{
	struct job *job = argument;
	struct arena *arena = job->arena;
	static char page[4096] __attribute__((aligned(4096)));
	struct uffd_msg message;

	memset(page, COPIED, sizeof(page));
	state = job->seed;
	while (!stop) {
		struct pollfd look = { arena->source_uffd, POLLIN, 0 };
		struct uffdio_copy copy = { 0, (unsigned long)page, sizeof(page), 0, 0 };

		if (poll(&look, 1, 50) <= 0 || read(arena->source_uffd, &message, sizeof(message)) != sizeof(message))
			continue;
		if (message.event != UFFD_EVENT_PAGEFAULT)
			continue;
		__atomic_add_fetch(&arena->waited, 1, __ATOMIC_RELAXED);
		copy.dst = message.arg.pagefault.address & ~4095UL;
		if (any(2))
			replace(arena, any(KINDS));
		if (any(2))
			usleep(any(3000));
		ioctl(arena->source_uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

/* At a multiple of a huge page: one more is mapped, and what is before it left alone. */
static char *aligned(size_t size)
{
	char *at = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == MAP_FAILED ? NULL : (char *)(((unsigned long)at + HUGE - 1) & ~(HUGE - 1));
}

static int set_up_source(struct arena *arena)
{
	struct uffdio_api api = { UFFD_API, 0, 0 };
	struct uffdio_register reg = { { 0, source_size(arena) }, UFFDIO_REGISTER_MODE_MISSING, 0 };

	arena->source = mmap(NULL, reg.range.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	arena->source_uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (arena->source == MAP_FAILED || arena->source_uffd < 0)
		return -1;
	madvise(arena->source, reg.range.len, MADV_NOHUGEPAGE);
	memset(arena->source, COPIED, reg.range.len);
	reg.range.start = (unsigned long)arena->source;
	return ioctl(arena->source_uffd, UFFDIO_API, &api) || ioctl(arena->source_uffd, UFFDIO_REGISTER, &reg);
}

static int set_up(struct arena *arena)
{
	struct uffdio_api api = { UFFD_API, 0, 0 };
	struct uffdio_register reg;
	int kind;

	arena->pages = arena->page > 4096 ? HUGE_PAGES : PAGES;
	arena->size = HUGE_PAGES * HUGE;
	for (kind = 0; kind < KINDS; kind++) {
		arena->files[kind] = -1;
		if (!arenas[kind].file)
			continue;
		arena->files[kind] = memfd_create(arenas[kind].name, arenas[kind].page > 4096 ? MFD_HUGETLB : 0);
		if (arena->files[kind] < 0 || ftruncate(arena->files[kind], arena->size))
			return -1;
	}
	if (arena->file) {
		arena->alias = mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_SHARED, arena->files[arena - arenas], 0);
		if (arena->alias == MAP_FAILED)
			return -1;
	}
	arena->start = aligned(arena->size);
	arena->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	/* No huge pages are reserved: what it lacks is one more thing that can go wrong. */
	if (!arena->start || map(arena, arena - arenas) || arena->uffd < 0 || set_up_source(arena))
		return -1;
	/* The missing, minor and wp features; none of the events, at which callers would wait. */
	api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM |
		       UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	if (ioctl(arena->uffd, UFFDIO_API, &api))
		return -1;
	reg.range.start = (unsigned long)arena->start;
	reg.range.len = arena->size;
	reg.mode = arena->file ? 7 : 3;
	return ioctl(arena->uffd, UFFDIO_REGISTER, &reg);
}

static void end_a_late_touch(pthread_t toucher, struct job *job)
{
	unsigned long touches = __atomic_load_n(&job->touches, __ATOMIC_RELAXED);

	if (touches == job->seen)
		pthread_kill(toucher, SIGUSR1);
	job->seen = touches;
}

static void join(pthread_t thread)
{
	struct timespec until;

	for (;;) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		if (pthread_timedjoin_np(thread, NULL, &until) != ETIMEDOUT)
			return;
		pthread_kill(thread, SIGUSR1);
	}
}

int main(int count, char **argv)
{
	pthread_t threads[KINDS][THREADS];
	struct job jobs[KINDS][THREADS];
	struct sigaction action = { .sa_handler = trapped }, withdraw = { .sa_handler = withdrawn };
	unsigned int seed;
	time_t end;
	unsigned long foreign = 0;
	int kind, each, used = 0;

	if (count != 3)
		return 2;
	end = time(NULL) + atoi(argv[1]);
	seed = strtoul(argv[2], NULL, 0);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGUSR1, &withdraw, NULL);
	for (kind = 0; kind < KINDS; kind++) {
		if (set_up(&arenas[kind])) {
			printf("%s: left out, %s\n", arenas[kind].name, strerror(errno));
			arenas[kind].uffd = -1;
			continue;
		}
		used++;
		for (each = 0; each < THREADS; each++) {
			jobs[kind][each] = (struct job){ &arenas[kind], seed + 7919 * (16 * kind + each), 0, 0 };
			pthread_create(&threads[kind][each], NULL,
				       each < CALLERS ? caller : each < CALLERS + TOUCHERS ? toucher :
				       each < THREADS - 1 ? handler : feeder,
				       &jobs[kind][each]);
		}
	}
	while (time(NULL) < end) {
		sleep(1);	/* longer, where more threads than CPUs want to run */
		for (kind = 0; kind < KINDS; kind++)
			for (each = CALLERS; arenas[kind].uffd >= 0 && each < CALLERS + TOUCHERS; each++)
				end_a_late_touch(threads[kind][each], &jobs[kind][each]);
	}
	stop = 1;
	for (kind = 0; kind < KINDS; kind++)
		if (arenas[kind].uffd >= 0) {
			close(arenas[kind].uffd);	/* lets go of who still waits */
			close(arenas[kind].source_uffd);
		}
	for (kind = 0; kind < KINDS; kind++) {
		struct arena *arena = &arenas[kind];

		if (arena->uffd < 0)
			continue;
		for (each = 0; each < THREADS; each++)
			join(threads[kind][each]);
		printf("%s: %lu calls, %lu did something, %lu faults, %lu touches, %lu of them ended by a fatal signal, "
		       "%lu withdrawn; %lu times other memory, %lu copies waited for their source, %lu foreign bytes\n",
		       arena->name, arena->calls, arena->done, arena->faults, arena->touches, arena->signals,
		       arena->withdrawn, arena->replaced, arena->waited, arena->foreign);
		foreign += arena->foreign;
	}
	return foreign ? 3 : used ? 0 : 1;
}
