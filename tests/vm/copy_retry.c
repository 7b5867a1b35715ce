// SPDX-License-Identifier: GPL-2.0-only
/*
 * copy_retry ROUNDS STARTS CHANGES HELD MODES: what UFFDIO_COPY does when its destination changes while it copies.
 *
 * UFFDIO_COPY copies with the address space locked, if the source is there.  If it is not, the kernel keeps the new page
 * (or pages), unlocks, takes the fault on the source, and looks the destination up again.  Here a second userfaultfd on
 * the source holds that fault open, while the destination is made something else.  Then the source gets its page.
 *
 * Every argument is a list of names or numbers with commas, or "all".  One line a combination, as key=value:
 *
 *   start change held mode   what was tried; held is the page of the source that is missing
 *   errno result             of the ioctl, and its word `copy`
 *   pages                    - absent, p present, P present and uffd-wp, m uffd-wp where no page is; runs, "p512,-512"
 *   content                  s the source's, z zero, f what the new mapping had before, t no access, x none of these
 *   write                    w, r: whether a present page can be written to; n not tried, - there is none, ? they differ
 *   blocks old_blocks        pages of 4 KiB that the file has that is mapped in the end, and the first one
 *   huge reserved            huge pages in use and reserved, against before
 *   left_...                 the same, and surplus ones, when all is unmapped again
 *   lost                     pages of 4 KiB that are not free again, of all rounds
 *   same                     whether all rounds ended so
 *
 * Needs root, 2 MiB hugetlb pages (16 are enough) and one CPU to itself.  cc -O2 -static -pthread
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB	4U
#endif
#ifndef MADV_COLD
#define MADV_COLD	20
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM	(1 << 12)
#endif

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define LEN		(2 * HUGE)
#define PAGES		(LEN / PAGE)
#define WORDS		(PAGE / sizeof(uint64_t))
#define DESTINATION	((char *)(1UL << 32))	/* aligned for pages of 1 GiB */
#define ELSEWHERE	((char *)(1UL << 33))
#define PATIENCE	120000			/* ms */
#define MAP_1GB		(30 << 26)
#define LINE		4096

#define PM_PRESENT	(1ULL << 63)
#define PM_UFFD_WP	(1ULL << 57)

#define CHECK(x) ({							\
	long check_ = (long)(x);					\
	if (check_ < 0) {						\
		fprintf(stderr, "line %d: %s: %s\n", __LINE__, #x, strerror(errno));	\
		exit(2);						\
	}								\
	check_; })

enum where { NO_FILE, MEMFD, HUGE_MEMFD };

static const struct kind {
	const char *name;
	enum where file;
	int flags;
	int advice;
} kinds[] = {
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

/* What is at the destination, and whose userfaultfd it is registered with. */
static struct mapping {
	const struct kind *kind;
	int file;		/* or -1 */
	int uffd;
} now;

static int uffd, uffd_events, uffd_third, uffd_source, pagemap;
static char *source;
static uint64_t missing[WORDS];		/* what the held page is to become */
static int first_file = -1;
static __thread sigjmp_buf trap;
static __thread volatile sig_atomic_t trapping;

static void trapped(int number)
{
	if (!trapping)
		_exit(3);
	siglongjmp(trap, number);
}

/* --- the pieces */

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = CHECK(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));

	CHECK(ioctl(fd, UFFDIO_API, &api));
	return fd;
}

static int try_register(int fd, char *at, size_t len, __u64 modes)
{
	struct uffdio_register reg = { .range = { (unsigned long)at, len }, .mode = modes };

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static void unregister(char *at, size_t len)
{
	struct uffdio_range range = { (unsigned long)at, len };

	ioctl(now.uffd, UFFDIO_UNREGISTER, &range);	/* of what is not mapped any more it is EINVAL */
}

static void map(const struct kind *kind, int file, off_t offset, size_t len)
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

static void watch(int fd, __u64 modes)
{
	CHECK(try_register(fd, DESTINATION, LEN, modes));
	now.uffd = fd;
}

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define WP		UFFDIO_REGISTER_MODE_WP
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

static void replace(const struct kind *kind, bool full)
{
	size_t i;

	CHECK(munmap(DESTINATION, LEN));
	map(kind, new_file(kind, LEN), 0, LEN);
	for (i = 0; full && i < LEN; i += sizeof(uint64_t))
		*(volatile uint64_t *)(DESTINATION + i) = ~0ULL;
	watch(uffd, MISSING | WP);
}

/* --- what may happen to the destination: each returns 0, or 1 where this kernel or kind of memory cannot */

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

static int without_wp(void)
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

static int only_minor(void)
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

static int changing(void)
{
	struct pollfd look = { .events = POLLIN };

	look.fd = uffd_events;
	CHECK(-pthread_create(&dropping, NULL, drop, NULL));
	if (poll(&look, 1, PATIENCE) != 1)
		exit(4);
	return 0;
}

static int giant(void)
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

static const struct change {
	const char *name;
	int (*make)(void);
	bool hole;	/* at the end the destination is not mapped, or of pages that cannot be had */
} changes[] = {
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

/* --- the copy, in a thread of its own */

static sem_t go, done;
static struct uffdio_copy request;
static int failed;

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

static void wait_for_the_fault(void)
{
	struct pollfd look = { .fd = uffd_source, .events = POLLIN };
	struct uffd_msg message;

	if (poll(&look, 1, PATIENCE) != 1 || read(uffd_source, &message, sizeof(message)) != sizeof(message)) {
		fprintf(stderr, "the copy did not stop at its source\n");
		exit(4);
	}
}

static void let_go(size_t held)
{
	struct uffdio_copy fill = { .src = (unsigned long)missing, .len = PAGE };
	struct timespec until;

	fill.dst = (unsigned long)source + held * PAGE;
	CHECK(ioctl(uffd_source, UFFDIO_COPY, &fill));
	CHECK(clock_gettime(CLOCK_REALTIME, &until));
	until.tv_sec += PATIENCE / 1000;
	if (sem_timedwait(&done, &until)) {
		fprintf(stderr, "the copy did not come to an end\n");
		exit(4);
	}
}

/* --- what is there */

static void fill_page(uint64_t *page, size_t number)
{
	size_t i;

	for (i = 0; i < WORDS; i++)
		page[i] = 0x5eed000000000001ULL + number * WORDS + i;
}

static bool can(char *at, bool write)
{
	volatile uint64_t *word = (volatile uint64_t *)at;

	trapping = 1;
	if (sigsetjmp(trap, 0)) {
		trapping = 0;
		return false;
	}
	if (write)
		*word = *word;
	else
		(void)*word;
	trapping = 0;
	return true;
}

static bool all(const uint64_t *page, uint64_t word)
{
	size_t i;

	for (i = 0; i < WORDS; i++)
		if (page[i] != word)
			return false;
	return true;
}

static char content(size_t number)
{
	char *at = DESTINATION + number * PAGE;

	if (!can(at, false))
		return 't';
	if (!memcmp(at, source + number * PAGE, PAGE))
		return 's';
	if (all((uint64_t *)at, 0))
		return 'z';
	return all((uint64_t *)at, ~0ULL) ? 'f' : 'x';
}

static void runs(char *to, const char *what)
{
	size_t i, begin = 0;
	int at = 0;

	for (i = 1; i <= PAGES; i++)
		if (i == PAGES || what[i] != what[begin]) {
			/* Foreign content has no order; a few runs tell enough. */
			if (at > 100) {
				snprintf(to + at, LINE - at, ",...");
				return;
			}
			at += snprintf(to + at, LINE - at, "%s%c%zu", begin ? "," : "", what[begin], i - begin);
			begin = i;
		}
}

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

struct pool {
	long used, reserved, surplus;
};

static struct pool pool(void)
{
	struct pool pool;

	pool.used = number_in("/proc/meminfo", "HugePages_Total:") - number_in("/proc/meminfo", "HugePages_Free:");
	pool.reserved = number_in("/proc/meminfo", "HugePages_Rsvd:");
	pool.surplus = number_in("/proc/meminfo", "HugePages_Surp:");
	return pool;
}

static long blocks(int file)
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
static long free_pages(long expected)
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

/* --- a round */

struct outcome {
	int failed;
	long result;
	char pages[PAGES], content[PAGES];
	char write;
	long blocks, old_blocks;
	struct pool then, left;
};

/* A write to a page of hugetlb that is uffd-wp in a range that is not registered for it would fault for ever in 6.1. */
static bool ends_for_sure(char page, const struct change *change)
{
	return page == 'p' || !change || (change->make != without_wp && change->make != only_minor);
}

static char can_write(const char *pages, const struct change *change)
{
	static const size_t some[] = { 0, 1, 511, 512, 513, 1023 };
	char found = '-';
	size_t i;

	for (i = 0; i < sizeof(some) / sizeof(*some); i++) {
		char this;

		if (pages[some[i]] != 'p' && pages[some[i]] != 'P')
			continue;
		this = !ends_for_sure(pages[some[i]], change) ? 'n' : can(DESTINATION + some[i] * PAGE, true) ? 'w' : 'r';
		found = found == '-' || found == this ? this : '?';
	}
	return found;
}

static void look(struct outcome *outcome, const struct change *change)
{
	static uint64_t words[PAGES];
	size_t i;

	CHECK(pread(pagemap, words, sizeof(words), (uintptr_t)DESTINATION / PAGE * sizeof(*words)));
	for (i = 0; i < PAGES; i++)
		outcome->pages[i] = words[i] & PM_PRESENT ? words[i] & PM_UFFD_WP ? 'P' : 'p' :
							    words[i] & PM_UFFD_WP ? 'm' : '-';
	outcome->write = can_write(outcome->pages, change);
	outcome->then = pool();
	outcome->blocks = blocks(now.file);
	outcome->old_blocks = blocks(first_file);
	unregister(DESTINATION, change && change->make == giant ? 1UL << 30 : LEN);
	if (change && change->hole) {
		memset(outcome->content, 't', PAGES);
		for (i = 0; change->make != giant && i < PAGES; i++)
			outcome->content[i] = content(i);
		return;
	}
	mprotect(DESTINATION, LEN, PROT_READ | PROT_WRITE);
	for (i = 0; i < PAGES; i++)
		outcome->content[i] = content(i);
}

static void clean_up(void)
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

/* Returns 1 where the change cannot be made. */
static int play(const struct kind *start, const struct change *change, const struct kind *to, bool full, size_t held,
		__u64 mode, struct outcome *outcome)
{
	struct pool before = pool();
	struct uffdio_range one = { (unsigned long)source + held * PAGE, PAGE };
	struct uffd_msg message;
	int cannot = 0;

	CHECK(madvise(source + held * PAGE, PAGE, MADV_DONTNEED));
	fill_page(missing, held);
	CHECK(try_register(uffd_source, source + held * PAGE, PAGE, MISSING));
	first_file = new_file(start, LEN);
	map(start, first_file, 0, LEN);
	watch(change && change->make == changing ? uffd_events : uffd, MISSING | WP);

	request = (struct uffdio_copy){ (unsigned long)DESTINATION, (unsigned long)source, LEN, mode, 0 };
	sem_post(&go);
	wait_for_the_fault();
	if (change)
		cannot = change->make();
	else
		replace(to, full);
	let_go(held);
	if (change && change->make == changing) {
		CHECK(read(uffd_events, &message, sizeof(message)));
		pthread_join(dropping, NULL);
	}
	memset(outcome, 0, sizeof(*outcome));
	outcome->failed = failed;
	outcome->result = request.copy;
	if (!cannot)
		look(outcome, change);
	outcome->then.used -= before.used;
	outcome->then.reserved -= before.reserved;
	outcome->then.surplus -= before.surplus;
	ioctl(uffd_source, UFFDIO_UNREGISTER, &one);
	clean_up();
	outcome->left = pool();
	outcome->left.used -= before.used;
	outcome->left.reserved -= before.reserved;
	outcome->left.surplus -= before.surplus;
	return cannot;
}

static void combination(int rounds, const struct kind *start, const struct change *change, const struct kind *to,
			bool full, size_t held, __u64 mode)
{
	static struct outcome first, other;
	static char pages[LINE], what[LINE];
	bool same = true, confirmed;
	long lost = 0, before, slack = (rounds - 1) / 2;
	int i, attempt;

	printf("start=%s change=%s%s%s held=%zu mode=%llu ", start->name, change ? change->name : "to-",
	       change ? "" : full ? "full-" : "", change ? "" : to->name, held, (unsigned long long)mode);
	if (play(start, change, to, full, held, mode, &first)) {
		printf("cannot=1\n");
		return;
	}
	/* What happens beside it costs a few pages now and then; what is lost in each round is lost again. */
	for (attempt = 0; attempt < 6; attempt++) {
		before = free_pages(0);
		for (i = 0; i < rounds; i++) {
			play(start, change, to, full, held, mode, &other);
			same = same && !memcmp(&first, &other, offsetof(struct outcome, left));
			first.left.used += other.left.used;
			first.left.reserved += other.left.reserved;
			first.left.surplus += other.left.surplus;
		}
		confirmed = lost >= rounds;
		lost = before - free_pages(before - slack);
		if ((lost >= -slack && lost <= slack) || (confirmed && lost >= rounds))
			break;
	}
	runs(pages, first.pages);
	runs(what, first.content);
	printf("errno=%d result=%ld pages=%s content=%s write=%c blocks=%ld old_blocks=%ld huge=%ld reserved=%ld ",
	       first.failed, first.result, pages, what, first.write, first.blocks, first.old_blocks, first.then.used,
	       first.then.reserved);
	printf("left_used=%ld left_reserved=%ld left_surplus=%ld rounds=%d lost=%ld same=%d\n", first.left.used,
	       first.left.reserved, first.left.surplus, rounds, lost, same);
}

static bool asked(const char *list, const char *name)
{
	size_t size = strlen(name);
	const char *at = list;

	if (!strcmp(list, "all"))
		return true;
	for (; (at = strstr(at, name)); at++)
		if ((at == list || at[-1] == ',') && (at[size] == ',' || !at[size]))
			return true;
	return false;
}

int main(int count, char **words)
{
	static const size_t helds[] = { 0, HUGE / PAGE };
	struct sigaction action = { .sa_handler = trapped, .sa_flags = SA_NODEFER };
	const struct kind *start, *to;
	const struct change *change;
	char held[16], mode[16], name[64];
	pthread_t thread;
	cpu_set_t cpu;
	__u64 features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			 UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS |
			 UFFD_FEATURE_MINOR_SHMEM;
	size_t page;
	int i, full;
	__u64 m;

	if (count != 6) {
		fprintf(stderr, "copy_retry ROUNDS STARTS CHANGES HELD MODES\n");
		return 2;
	}
	setlinebuf(stdout);
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	CHECK(sched_setaffinity(0, sizeof(cpu), &cpu));	/* whose lists of pages are its own */
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	/* With SIGBUS for an answer, no touch of the destination waits. */
	uffd = open_uffd(features);
	uffd_third = open_uffd(features);
	uffd_events = open_uffd(features | UFFD_FEATURE_EVENT_REMOVE);
	uffd_source = open_uffd(0);
	pagemap = CHECK(open("/proc/self/pagemap", O_RDONLY));
	source = (char *)CHECK(mmap((void *)(3UL << 32), LEN, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	CHECK(madvise(source, LEN, MADV_NOHUGEPAGE));
	for (page = 0; page < PAGES; page++)
		fill_page((uint64_t *)(source + page * PAGE), page);
	CHECK(sem_init(&go, 0, 0));
	CHECK(sem_init(&done, 0, 0));
	CHECK(-pthread_create(&thread, NULL, copier, NULL));
	now = (struct mapping){ NULL, -1, -1 };

	for (start = kinds; start->name; start++) {
		if (!asked(words[2], start->name))
			continue;
		for (i = 0; i < 2; i++)
			for (m = 0; m <= UFFDIO_COPY_MODE_WP; m += UFFDIO_COPY_MODE_WP) {
				snprintf(held, sizeof(held), "%zu", helds[i]);
				snprintf(mode, sizeof(mode), "%llu", (unsigned long long)m);
				if (!asked(words[4], held) || !asked(words[5], mode))
					continue;
				for (change = changes; change->name; change++)
					if (asked(words[3], change->name))
						combination(atoi(words[1]), start, change, NULL, false, helds[i], m);
				for (to = kinds; to->name; to++)
					for (full = 0; full < 2; full++) {
						snprintf(name, sizeof(name), "to-%s%s", full ? "full-" : "", to->name);
						if (asked(words[3], name))
							combination(atoi(words[1]), start, NULL, to, full, helds[i], m);
					}
			}
	}
	return 0;
}
