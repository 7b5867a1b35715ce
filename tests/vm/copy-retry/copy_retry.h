/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of copy_retry share; main.c tells what it is about. */
#ifndef COPY_RETRY_H
#define COPY_RETRY_H

#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define LEN		(2 * HUGE)
#define PAGES		(LEN / PAGE)
#define WORDS		(PAGE / sizeof(uint64_t))
#define DESTINATION	((char *)(1UL << 32))	/* aligned for pages of 1 GiB */
#define ELSEWHERE	((char *)(1UL << 33))
#define PATIENCE	120000			/* ms */

#define CHECK(x) ({							\
	long check_ = (long)(x);					\
	if (check_ < 0) {						\
		fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, strerror(errno));	\
		exit(2);						\
	}								\
	check_; })

/* destination.c: what is there, and the userfaultfd that it is registered with */

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define WP		UFFDIO_REGISTER_MODE_WP
#define MINOR		UFFDIO_REGISTER_MODE_MINOR

enum where { NO_FILE, MEMFD, HUGE_MEMFD };

struct kind {
	const char *name;
	enum where file;
	int flags;
	int advice;
};

extern const struct kind kinds[];

extern struct mapping {
	const struct kind *kind;
	int file;		/* or -1 */
	int uffd;
} now;

extern int first_file;		/* the file that is mapped when the copy begins, or -1 */
extern int uffd, uffd_events, uffd_third;

void open_uffds(void);
int open_uffd(__u64 features);
int try_register(int fd, char *at, size_t len, __u64 modes);
void unregister(char *at, size_t len);
void watch(int fd, __u64 modes);	/* registers the destination */
void map(const struct kind *kind, int file, off_t offset, size_t len);
void begin_with(const struct kind *kind, int fd);
void replace(const struct kind *kind, bool full);
void clean_up(void);

/* changes.c: what may happen to it */

extern const struct change {
	const char *name;
	int (*make)(void);	/* returns 0, or 1 where this kernel or kind of memory cannot */
	bool hole;		/* at the end the destination is not mapped, or of pages that cannot be had */
} changes[];

int changing(void);
void end_changing(void);
int without_wp(void);
int only_minor(void);
int giant(void);

/* copy.c: the copy, in a thread of its own, and its source */

extern char *source;

void start_copier(void);
void begin_copy(size_t held, __u64 mode);
int end_copy(size_t held, long *result);	/* an errno, or 0 */

/* accounting.c: what the kernel counts */

struct pool {
	long used, reserved, surplus;
};

struct pool pool(void);
struct pool pool_since(struct pool before);
long blocks(int file);
long free_pages(long expected);

/* look.c: what is there in the end */

struct outcome {
	int failed;		/* errno, or 0 */
	long result;
	char pages[PAGES], content[PAGES];
	char write;
	long blocks, old_blocks;
	struct pool then, left;	/* against before; now, and when all is unmapped again */
};

void start_looking(void);
void look(struct outcome *outcome, const struct change *change, struct pool before);

#endif
