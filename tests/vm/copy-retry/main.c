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
 * Needs root, 2 MiB hugetlb pages (16 are enough) and one CPU to itself.  cc -O2 -static -pthread *.c
 */
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>

#include "copy_retry.h"

#define LINE		4096

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

/* Returns 1 where the change cannot be made. */
static int play(const struct kind *start, const struct change *change, const struct kind *to, bool full, size_t held,
		__u64 mode, struct outcome *outcome)
{
	bool is_changing = change && change->make == changing;
	struct pool before = pool();
	int cannot = 0;

	begin_with(start, is_changing ? uffd_events : uffd);
	begin_copy(held, mode);
	if (change)
		cannot = change->make();
	else
		replace(to, full);
	memset(outcome, 0, sizeof(*outcome));
	outcome->failed = end_copy(held, &outcome->result);
	if (is_changing)
		end_changing();
	if (!cannot)
		look(outcome, change, before);
	clean_up();
	outcome->left = pool_since(before);
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

static void combinations(char **argv, const struct kind *start, size_t held, __u64 mode)
{
	const struct change *change;
	const struct kind *to;
	char name[64];
	int full;

	for (change = changes; change->name; change++)
		if (asked(argv[3], change->name))
			combination(atoi(argv[1]), start, change, NULL, false, held, mode);
	for (to = kinds; to->name; to++)
		for (full = 0; full < 2; full++) {
			snprintf(name, sizeof(name), "to-%s%s", full ? "full-" : "", to->name);
			if (asked(argv[3], name))
				combination(atoi(argv[1]), start, NULL, to, full, held, mode);
		}
}

int main(int count, char **argv)
{
	static const size_t helds[] = { 0, HUGE / PAGE };
	const struct kind *start;
	char held[16], mode[16];
	cpu_set_t cpu;
	int i;
	__u64 m;

	if (count != 6) {
		fprintf(stderr, "copy_retry ROUNDS STARTS CHANGES HELD MODES\n");
		return 2;
	}
	setlinebuf(stdout);
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	CHECK(sched_setaffinity(0, sizeof(cpu), &cpu));	/* whose lists of pages are its own */
	open_uffds();
	start_looking();
	start_copier();

	for (start = kinds; start->name; start++) {
		if (!asked(argv[2], start->name))
			continue;
		for (i = 0; i < 2; i++)
			for (m = 0; m <= UFFDIO_COPY_MODE_WP; m += UFFDIO_COPY_MODE_WP) {
				snprintf(held, sizeof(held), "%zu", helds[i]);
				snprintf(mode, sizeof(mode), "%llu", (unsigned long long)m);
				if (asked(argv[4], held) && asked(argv[5], mode))
					combinations(argv, start, helds[i], m);
			}
	}
	return 0;
}
