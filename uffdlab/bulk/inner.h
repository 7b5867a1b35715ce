/* SPDX-License-Identifier: GPL-2.0-only */
/* Declarations that decode.c and walk.c share. */
#ifndef BULK_INNER_H
#define BULK_INNER_H

/* Loops over many entries are also compiled for wider vectors; the loader chooses what the processor supports. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef CLONES
#define CLONES
#endif

#define TABLE 512	/* entries in a page table: 4 KiB, which fits in the first-level cache */

/* The decoded form of an entry. */
struct decoded {
	uint32_t state;
	uint32_t known;
	int level;
};

/* `any` is the disjunction of some entries, `all` the conjunction.  Returns whether *decoded is right for all of them. */
int bulk_alike(const struct bulk_decoder *d, uint64_t any, uint64_t all, int above, struct decoded *decoded);

/* Decodes each of at most TABLE entries; returns how many are odd. */
uint64_t bulk_decode_each(const struct bulk_decoder *d, const uint64_t *entries, unsigned int count, int above,
			  uint32_t *states, uint32_t *known);

void bulk_fill(uint32_t *to, uint32_t value, uint64_t count);

#endif
