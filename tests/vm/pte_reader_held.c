// SPDX-License-Identifier: GPL-2.0-only
/*
 * What /dev/pte_reader reads when what it reads changes meanwhile.
 *
 * It copies entries out without a lock, one page of them at a time.  Here that page is missing, and a userfaultfd holds
 * the fault open while the process that is read changes: its memory is replaced, it exits, it calls execve().  What was
 * read before must be of before, what is read then of then; nothing of the process may be kept.  TAP on stdout.
 *
 * Needs root and two 2 MiB hugetlb pages.  cc -O2 -static -pthread -I.../include/uapi
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/pte_reader.h>

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define CHUNK		(PAGE / sizeof(struct pte_reader_entry))
#define COUNT		(2 * CHUNK)
#define AREA		((char *)(1UL << 32))
#define PATIENCE	120000		/* ms */
#define CHECK(x) ({							\
	long check_ = (long)(x);					\
	if (check_ < 0) {						\
		printf("Bail out! line %d: %s: %s\n", __LINE__, #x, strerror(errno));	\
		exit(2);						\
	}								\
	check_; })

static int device, uffd, ended[2], tests, failed;
static struct pte_reader_entry *buffer;
static pid_t whom;
static int error;

static void report(bool ok, const char *name)
{
	printf("%sok %d - %s\n", ok ? "" : "not ", ++tests, name);
	failed += !ok;
}

static int read_entries(pid_t pid, struct pte_reader_entry *entries)
{
	struct pte_reader_request request = {
		.pid = pid, .start = (uintptr_t)AREA, .count = COUNT, .entries = (uintptr_t)entries,
	};

	return ioctl(device, PTE_READER_READ, &request) ? errno : 0;
}

static void *reader(void *unused)
{
	(void)unused;
	error = read_entries(whom, buffer);
	CHECK(write(ended[1], "", 1));
	return NULL;
}

/* Whether the reader waits for a page of its buffer; false if it has come to its end. */
static bool faulted(void)
{
	struct pollfd look[] = { { .fd = uffd, .events = POLLIN }, { .fd = ended[0], .events = POLLIN } };
	struct uffd_msg message;

	if (CHECK(poll(look, 2, PATIENCE)) == 0) {
		printf("Bail out! the reader neither waits nor ends\n");
		exit(2);
	}
	return read(uffd, &message, sizeof(message)) == sizeof(message);
}

static void join(pthread_t thread)
{
	char c;

	pthread_join(thread, NULL);
	CHECK(read(ended[0], &c, 1));
}

static void must_fault(void)
{
	if (!faulted()) {
		printf("Bail out! the reader did not wait for its buffer: %s\n", strerror(error));
		exit(2);
	}
}

static void put_page(size_t number)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)buffer + number * PAGE, PAGE } };

	CHECK(ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
}

static char *map(int flags)
{
	char *at = (char *)CHECK(mmap(AREA, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_FIXED | flags, -1, 0));

	if (!(flags & MAP_HUGETLB))
		madvise(at, 2 * HUGE, MADV_NOHUGEPAGE);
	return at;
}

static void fill(char *at)
{
	size_t i;

	for (i = 0; i < 2 * HUGE; i += PAGE)
		*(volatile char *)(at + i) = 1;
}

static void small(void) { fill(map(MAP_PRIVATE | MAP_ANONYMOUS)); }
static void shmem(void) { fill(map(MAP_SHARED | MAP_ANONYMOUS)); }
static void untouched(void) { map(MAP_PRIVATE | MAP_ANONYMOUS); }
static void gone(void) { CHECK(munmap(AREA, 2 * HUGE)); }
static void read_only(void) { CHECK(mprotect(AREA, 2 * HUGE, PROT_READ)); }
static void dropped(void) { CHECK(madvise(AREA, 2 * HUGE, MADV_DONTNEED)); }
static void hugetlb(void) { fill(map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)); }

static void huge(void)
{
	char *at = map(MAP_PRIVATE | MAP_ANONYMOUS);

	madvise(at, 2 * HUGE, MADV_HUGEPAGE);
	fill(at);
}

static void drop_buffer(void)
{
	CHECK(madvise(buffer, COUNT * sizeof(*buffer), MADV_DONTNEED));
}

static void test_change(void (*first)(void), void (*then)(void), const char *name)
{
	static struct pte_reader_entry before[COUNT], after[COUNT];
	pthread_t thread;
	bool twice;

	first();
	CHECK(-read_entries(getpid(), before));
	drop_buffer();
	whom = getpid();
	CHECK(-pthread_create(&thread, NULL, reader, NULL));
	must_fault();
	then();
	put_page(0);
	twice = faulted();
	if (twice)
		put_page(1);
	join(thread);
	CHECK(-read_entries(getpid(), after));
	report(!error && twice && !memcmp(buffer, before, CHUNK * sizeof(*buffer)) &&
	       !memcmp(buffer + CHUNK, after + CHUNK, CHUNK * sizeof(*buffer)), name);
	munmap(AREA, 2 * HUGE);
}

static long free_huge_pages(void)
{
	char text[4096], *at;
	int fd = CHECK(open("/proc/meminfo", O_RDONLY));
	ssize_t size = CHECK(read(fd, text, sizeof(text) - 1));

	close(fd);
	text[size] = 0;
	at = strstr(text, "HugePages_Free:");
	return at ? strtol(at + strlen("HugePages_Free:"), NULL, 10) : -1;
}

static void test_end(bool exec, const char *name)
{
	long before = free_huge_pages();
	int ready[2], go[2];
	pthread_t thread;
	siginfo_t info;
	bool again;
	pid_t pid;
	char c;

	CHECK(pipe2(ready, O_CLOEXEC));
	CHECK(pipe2(go, O_CLOEXEC));
	pid = CHECK(fork());
	if (!pid) {
		hugetlb();
		if (write(ready[1], "", 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		if (exec)
			execl("/proc/self/exe", "pte_reader_held", "wait", NULL);
		_exit(0);
	}
	CHECK(read(ready[0], &c, 1) - 1);
	drop_buffer();
	whom = pid;
	CHECK(-pthread_create(&thread, NULL, reader, NULL));
	must_fault();
	close(ready[1]);
	CHECK(write(go[1], "", 1));
	/* Its end of the pipe closes when it has exec'ed; and when it has ended. */
	if (exec)
		CHECK(read(ready[0], &c, 1));
	else
		CHECK(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	put_page(0);
	again = faulted();
	if (again)
		put_page(1);
	join(thread);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, NULL, 0));
	report(error == ESRCH && !again && free_huge_pages() == before, name);
	close(ready[0]);
	close(go[0]);
	close(go[1]);
}

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	(void)argv;
	if (argc > 1)
		return pause();
	setlinebuf(stdout);
	device = CHECK(open("/dev/pte_reader", O_RDONLY | O_CLOEXEC));
	CHECK(pipe2(ended, O_CLOEXEC));
	uffd = CHECK(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
	CHECK(ioctl(uffd, UFFDIO_API, &api));
	reg.range.len = COUNT * sizeof(*buffer);
	buffer = (void *)CHECK(mmap(NULL, reg.range.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	reg.range.start = (uintptr_t)buffer;
	CHECK(ioctl(uffd, UFFDIO_REGISTER, &reg));

	test_change(small, gone, "small pages, then nothing");
	test_change(small, untouched, "small pages, then others that nobody touched");
	test_change(small, read_only, "small pages, then read-only");
	test_change(small, dropped, "small pages, then dropped");
	test_change(small, shmem, "small pages, then of a file");
	test_change(small, huge, "small pages, then huge ones");
	test_change(small, hugetlb, "small pages, then hugetlb");
	test_change(huge, small, "huge pages, then small ones");
	test_change(huge, gone, "huge pages, then nothing");
	test_change(huge, hugetlb, "huge pages, then hugetlb");
	test_change(hugetlb, small, "hugetlb, then small pages");
	test_change(hugetlb, gone, "hugetlb, then nothing");
	test_change(shmem, hugetlb, "pages of a file, then hugetlb");
	test_end(false, "a process that exits meanwhile is ESRCH, and nothing of it is kept");
	test_end(true, "a process that calls execve() meanwhile is ESRCH, and nothing of it is kept");
	printf("1..%d\n", tests);
	return failed != 0;
}
