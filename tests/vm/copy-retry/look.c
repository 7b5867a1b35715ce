// SPDX-License-Identifier: GPL-2.0-only
/* What is there in the end: entries, content, and whether it can be written to. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copy_retry.h"

#define PM_PRESENT	(1ULL << 63)
#define PM_UFFD_WP	(1ULL << 57)

static int pagemap;
static __thread sigjmp_buf trap;
static __thread volatile sig_atomic_t trapping;

static void trapped(int number)
{
	if (!trapping)
		_exit(3);
	siglongjmp(trap, number);
}

void start_looking(void)
{
	struct sigaction action = { .sa_handler = trapped, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	pagemap = CHECK(open("/proc/self/pagemap", O_RDONLY));
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

void look(struct outcome *outcome, const struct change *change, struct pool before)
{
	static uint64_t entries[PAGES];
	size_t i;

	CHECK(pread(pagemap, entries, sizeof(entries), (uintptr_t)DESTINATION / PAGE * sizeof(*entries)));
	for (i = 0; i < PAGES; i++)
		outcome->pages[i] = entries[i] & PM_PRESENT ? entries[i] & PM_UFFD_WP ? 'P' : 'p' :
							    entries[i] & PM_UFFD_WP ? 'm' : '-';
	outcome->write = can_write(outcome->pages, change);
	outcome->then = pool_since(before);
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
