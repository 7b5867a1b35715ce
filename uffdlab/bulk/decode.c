// SPDX-License-Identifier: GPL-2.0-only
/*
 * Decodes entries to states.  The caller's table (made in uffdlab/pte) defines
 * what the bits mean; this file only looks them up, fast.
 */
#include <stdint.h>

#include "bulk.h"
#include "inner.h"

#define LOW_BITS UINT64_C(0xFFF)
#define ABOVE 0x1000u

int bulk_alike(const struct bulk_decoder *d, uint64_t any, uint64_t all, int above, struct decoded *decoded)
{
	decoded->state = d->low[(any & LOW_BITS) | (above ? ABOVE : 0)];
	decoded->known = any ? d->known_plain : d->known_empty;
	if (!any)
		return 1;
	return !((any ^ all) & (d->plain_mask | LOW_BITS)) && (any & d->plain_mask) == d->plain;
}

CLONES uint64_t bulk_decode_each(const struct bulk_decoder *d, const uint64_t *restrict entries, unsigned int count,
				 int above, uint32_t *restrict states, uint32_t *restrict known)
{
	const uint32_t *const low = d->low + (above ? ABOVE : 0);
	const uint32_t known_empty = d->known_empty, known_plain = d->known_plain, known_odd = d->odd;
	const uint64_t mask = d->plain_mask, plain = d->plain;
	uint64_t odd = 0;

	/* one operation in each loop, so that the compiler can vectorize it */
	for (unsigned int i = 0; i < count; i++)
		states[i] = low[entries[i] & LOW_BITS];
	for (unsigned int i = 0; i < count; i++)
		known[i] = (entries[i] & mask) == plain ? known_plain : entries[i] ? known_odd : known_empty;
	for (unsigned int i = 0; i < count; i++)
		odd += known[i] == known_odd;
	return odd;
}

CLONES void bulk_fill(uint32_t *to, uint32_t value, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		to[i] = value;
}

CLONES static void join(const uint64_t *entries, unsigned int count, uint64_t *any, uint64_t *all)
{
	uint64_t or = 0, and = ~UINT64_C(0);

	for (unsigned int i = 0; i < count; i++) {
		or |= entries[i];
		and &= entries[i];
	}
	*any = or;
	*all = and;
}

uint64_t bulk_decode(const struct bulk_decoder *decoder, const uint64_t *entries, uint64_t count, int above,
		     uint32_t *states, uint32_t *known)
{
	uint64_t odd = 0, any = 0, all = 0;
	struct decoded decoded;

	for (uint64_t low = 0; low < count; low += TABLE) {
		const unsigned int size = count - low < TABLE ? (unsigned int)(count - low) : TABLE;

		join(entries + low, size, &any, &all);
		if (bulk_alike(decoder, any, all, above, &decoded)) {
			bulk_fill(states + low, decoded.state, size);
			bulk_fill(known + low, decoded.known, size);
		} else {
			odd += bulk_decode_each(decoder, entries + low, size, above, states + low, known + low);
		}
	}
	return odd;
}
