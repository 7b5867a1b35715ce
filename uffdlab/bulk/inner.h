/* SPDX-License-Identifier: GPL-2.0-only */
/* What decode.c and walk.c share. */
#ifndef BULK_INNER_H
#define BULK_INNER_H

/* Loops over many entries are compiled for wider vectors too; the loader takes what the processor has. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef CLONES
#define CLONES
#endif

#define TABLE 512	/* entries of a page table: 4 KiB, which stay in the first-level cache */

/* What is decoded of an entry. */
struct told {
	uint32_t state;
	uint32_t known;
	int level;
};

/* Entries of which `any` is the disjunction and `all` the conjunction: tells whether one look-up will do for them. */
int bulk_alike(const struct bulk_decoder *d, uint64_t any, uint64_t all, int above, struct told *told);

/* Looks each of at most TABLE entries up; gives how many are odd. */
uint64_t bulk_decode_each(const struct bulk_decoder *d, const uint64_t *words, unsigned int count, int above,
			  uint32_t *states, uint32_t *known);

void bulk_fill(uint32_t *to, uint32_t value, uint64_t count);

#endif
