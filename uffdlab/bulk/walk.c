// SPDX-License-Identifier: GPL-2.0-only
/*
 * x86-64 page tables in the RAM of a guest, which may change them during the
 * walk.  Any value that is read may be wrong: frames are checked, and a walk
 * never goes deeper than the number of levels.
 */
#include <stdint.h>
#include <string.h>

#include "bulk.h"
#include "inner.h"

#define PRESENT UINT64_C(1)
#define PSE (UINT64_C(1) << 7)			/* a huge page, at PMD and PUD only */
#define FRAME UINT64_C(0x000FFFFFFFFFF000)
#define FOUR_GIB_FRAME (UINT64_C(1) << 20)

static const uint64_t *frame_in(const struct bulk_ram *ram, uint64_t frame)
{
	if (frame < ram->below)
		return ram->frames + 512 * frame;
	if (frame >= FOUR_GIB_FRAME && frame - FOUR_GIB_FRAME < ram->above)
		return ram->frames + 512 * (ram->below + frame - FOUR_GIB_FRAME);
	return NULL;
}

static uint64_t now(const uint64_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

static int is_table(uint64_t entry, int level)
{
	return entry & PRESENT && level > 1 && !((level == 2 || level == 3) && entry & PSE);
}

struct walk {
	const struct bulk_ram *ram;
	const struct bulk_decoder *decoder;
	struct bulk_reading *out;
	uint64_t origin;	/* number of the first page, counted from address 0 */
	/* Pages [from, upto) decode alike and are not written yet: one long fill is faster than many short ones. */
	uint64_t from, upto;
	struct decoded decoded;
};

static void write_run(struct walk *walk)
{
	const uint64_t count = walk->upto - walk->from;

	bulk_fill(walk->out->states + walk->from, walk->decoded.state, count);
	bulk_fill(walk->out->known + walk->from, walk->decoded.known, count);
	memset(walk->out->levels + walk->from, walk->decoded.level, count);
	walk->from = walk->upto;
}

static void add_to_run(struct walk *walk, struct decoded decoded, uint64_t count)
{
	if (decoded.state != walk->decoded.state || decoded.known != walk->decoded.known || decoded.level != walk->decoded.level)
		write_run(walk);
	walk->decoded = decoded;
	walk->upto += count;
}

/*
 * Copies a table and returns whether a second read is equal.  Then the copy is
 * the table at one moment between the two reads.
 */
CLONES static int copy_table(uint64_t *restrict copy, const uint64_t *restrict table, unsigned int count,
			     uint64_t *any, uint64_t *all)
{
	uint64_t or = 0, and = ~UINT64_C(0), differ = 0;

	for (unsigned int i = 0; i < count; i++) {
		const uint64_t entry = table[i];

		copy[i] = entry;
		or |= entry;
		and &= entry;
	}
	__asm__ volatile("" ::: "memory");	/* the guest may write to it: the compiler must read it again */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	for (unsigned int i = 0; i < count; i++)
		differ |= copy[i] ^ table[i];
	*any = or;
	*all = and;
	return !differ;
}

static int leaves(struct walk *walk, const uint64_t *table, uint64_t at, unsigned int count)
{
	struct bulk_reading *out = walk->out;
	const int above = out->bottom > 1;
	uint64_t any = 0, all = 0;
	struct decoded decoded = { .level = out->bottom };

	if (!copy_table(out->entries + at, table, count, &any, &all))
		return BULK_CHANGED;
	if (bulk_alike(walk->decoder, any, all, above, &decoded)) {
		add_to_run(walk, decoded, count);
	} else {
		write_run(walk);
		out->odd += bulk_decode_each(walk->decoder, out->entries + at, count, above, out->states + at,
					     out->known + at);
		memset(out->levels + at, out->bottom, count);
		walk->from = walk->upto = at + count;
	}
	return BULK_DONE;
}

static void fill_range(struct walk *walk, uint64_t entry, int level, uint64_t at, uint64_t count)
{
	struct bulk_reading *out = walk->out;
	struct decoded decoded = { .level = level };

	if (bulk_decode(walk->decoder, &entry, 1, level > 1, &decoded.state, &decoded.known))
		out->odd += count;
	for (uint64_t i = at; i < at + count; i++)
		out->entries[i] = entry;
	add_to_run(walk, decoded, count);
}

/* Tables are at random addresses, which the processor cannot predict: prefetch the next one while this one is read. */
static void prefetch_table(const struct walk *walk, uint64_t entry, int level)
{
	const uint64_t *table = is_table(entry, level) ? frame_in(walk->ram, (entry & FRAME) >> 12) : NULL;

	for (int slot = 0; table && slot < TABLE; slot += 8)
		__builtin_prefetch(table + slot);
}

/* `first` and `last` are numbers of pages, counted from address 0. */
static int read_table(struct walk *walk, uint64_t frame, int level, uint64_t first, uint64_t last)
{
	const uint64_t *table = frame_in(walk->ram, frame);
	const int shift = 9 * (level - walk->out->bottom);

	if (!table) {
		walk->out->outside = frame;
		return BULK_OUTSIDE;
	}
	if (!shift)
		return leaves(walk, table + (first & 511), first - walk->origin, (unsigned int)(last - first + 1));
	for (uint64_t at = first >> shift; at <= last >> shift; at++) {
		const uint64_t *place = table + (at & 511), entry = now(place);
		const uint64_t low = at << shift, high = low + (UINT64_C(1) << shift) - 1;
		const uint64_t from = low > first ? low : first, to = high < last ? high : last;
		int end = BULK_DONE;

		if (level == walk->out->bottom + 1 && at < last >> shift)
			prefetch_table(walk, now(place + 1), level);
		if (is_table(entry, level))
			end = read_table(walk, (entry & FRAME) >> 12, level - 1, from, to);
		else
			fill_range(walk, entry, level, from - walk->origin, to - from + 1);
		if (now(place) != entry)
			return BULK_CHANGED;
		if (end != BULK_DONE)
			return end;
	}
	return BULK_DONE;
}

int bulk_read(const struct bulk_ram *ram, const struct bulk_decoder *decoder, uint64_t root, int levels,
	      struct bulk_reading *reading)
{
	struct walk walk = {
		.ram = ram, .decoder = decoder, .out = reading,
		.origin = reading->start >> (3 + 9 * reading->bottom),
	};
	int end;

	reading->odd = 0;
	if (!reading->count)
		return BULK_DONE;
	end = read_table(&walk, root, levels, walk.origin, walk.origin + reading->count - 1);
	if (end != BULK_DONE)
		return end;
	reading->alike = !walk.from;
	if (reading->alike) {
		reading->alike_state = walk.decoded.state;
		reading->alike_known = walk.decoded.known;
		reading->alike_level = (uint8_t)walk.decoded.level;
	} else {
		write_run(&walk);
	}
	return BULK_DONE;
}

int bulk_path(const struct bulk_ram *ram, uint64_t root, int levels, uint64_t address, struct bulk_step *steps,
	      uint64_t *outside)
{
	uint64_t frame = root;
	int count = 0;

	for (int level = levels; level > 0; level--) {
		const uint64_t *table = frame_in(ram, frame);
		const int slot = address >> (3 + 9 * level) & 511;
		uint64_t entry;

		if (!table) {
			*outside = frame;
			return 0;
		}
		entry = now(table + slot);
		steps[count++] = (struct bulk_step){ frame, entry, level, slot };
		if (!is_table(entry, level))
			break;
		frame = (entry & FRAME) >> 12;
	}
	return count;
}
