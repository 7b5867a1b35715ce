// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hostile page tables for uffdlab/bulk:  fuzz_walk ROUNDS SEED
 *
 * Each round makes a small RAM out of random frames, between two pages that
 * cannot be touched, and reads it many times.  Somebody changes it meanwhile:
 * a second thread, or, with -DCHANGE_AT_READS, whatever reads an entry, just
 * before and just after.  In some rounds nobody does, and what is read is held
 * against a walk of our own.  Outputs have just the size that they must have.
 *
 * Ends by abort() when something is wrong that no sanitizer sees.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_ABOVE (UINT64_C(1) << 20)	/* the frame at 4 GiB */
#define ENTRY_FRAME UINT64_C(0x000FFFFFFFFFF000)
#define MOST_FRAMES 2048
#define READS 60

struct random {
	uint64_t a, b;
};

static struct random ours;
static uint64_t *ram;
static uint64_t frames, below, above;
static uint64_t changed;

static uint64_t next(struct random *random)	/* xorshift128+ */
{
	uint64_t a = random->a;
	const uint64_t b = random->b;

	a ^= a << 23;
	random->a = b;
	random->b = a ^ b ^ a >> 18 ^ b >> 5;
	return random->b + b;
}

static uint64_t below_of(uint64_t bound)
{
	return next(&ours) % bound;
}

static int is_ram(uint64_t frame)
{
	return frame < below || (frame >= FIRST_ABOVE && frame - FIRST_ABOVE < above);
}

/* The number that page tables have for a frame of the file. */
static uint64_t frame_of(uint64_t index)
{
	return index < below ? index : index - below + FIRST_ABOVE;
}

static uint64_t hostile_entry(struct random *random)
{
	static const uint64_t flags[] = { 0x001, 0x025, 0x063, 0x067, 0x0e7, 0x465, 0x867, 0x800, 0xfff };
	const uint64_t low = flags[next(random) % (sizeof(flags) / sizeof(flags[0]))];
	const uint64_t edges[] = {
		below, below - 1, FIRST_ABOVE, FIRST_ABOVE - 1, FIRST_ABOVE + above, FIRST_ABOVE + above - 1,
		ENTRY_FRAME >> 12,
	};

	switch (next(random) % 12) {
	case 0:
		return 0;
	case 1:
		return ~UINT64_C(0);
	case 2:
		return next(random);
	case 3:
		return next(random) & ~UINT64_C(1);
	case 4:
	case 5:
		return (edges[next(random) % (sizeof(edges) / sizeof(edges[0]))] << 12 & ENTRY_FRAME) | low;
	case 6:		/* a huge page, where a level has such */
		return frame_of(next(random) % frames) << 12 | low | 0x80;
	case 7:
		return frame_of(next(random) % frames) << 12 | low | UINT64_C(1) << 63;
	default:
		return frame_of(next(random) % frames) << 12 | low;
	}
}

#ifdef CHANGE_AT_READS
static int one_in;	/* an entry is changed at one read of so many; 0 for never */

static void change_one(const uint64_t *near)
{
	if (!one_in || below_of((uint64_t)one_in))
		return;
	changed++;
	if (near && below_of(2))
		*(uint64_t *)(uintptr_t)near = hostile_entry(&ours);
	else
		ram[below_of(frames * 512)] = hostile_entry(&ours);
}

static uint64_t changing_load(const uint64_t *place)
{
	uint64_t entry;

	change_one(place);
	entry = *(const volatile uint64_t *)place;
	change_one(place);
	return entry;
}

#define __atomic_load_n(entry, order) changing_load(entry)
#define __atomic_thread_fence(order) change_one(NULL)
#include "walk.c"
#undef __atomic_load_n
#undef __atomic_thread_fence
#else
#include "bulk.h"
#endif

static void must(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_walk: %s\n", what);
	abort();
}

#ifndef CHANGE_AT_READS
static struct random theirs = { 11, 13 };
static int stop;

static void *change_all_the_time(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		for (int i = 0; i < 64; i++)
			__atomic_store_n(&ram[next(&theirs) % (frames * 512)], hostile_entry(&theirs), __ATOMIC_RELAXED);
		changed += 64;
		sched_yield();
	}
	return NULL;
}
#endif

static uint32_t low_table[8192];

static uint32_t state_of(uint64_t entry, int level)
{
	return low_table[(entry & 0xfff) | (level > 1 ? 0x1000 : 0)];
}

static uint32_t known_of(const struct bulk_decoder *decoder, uint64_t entry)
{
	if ((entry & decoder->plain_mask) == decoder->plain)
		return decoder->known_plain;
	return entry ? decoder->odd : decoder->known_empty;
}

/* A walk of our own to the entry that tells of an address: returns its level, or 0 at a frame that is not RAM. */
static int walk_to(uint64_t root, int levels, int bottom, uint64_t address, uint64_t *entry)
{
	uint64_t frame = root;

	for (int level = levels; ; level--) {
		if (!is_ram(frame))
			return 0;
		*entry = ram[512 * (frame < below ? frame : frame - FIRST_ABOVE + below) +
			    (address >> (3 + 9 * level) & 511)];
		if (level == bottom || !(*entry & 1) || ((level == 2 || level == 3) && *entry & 0x80))
			return level;
		frame = (*entry & ENTRY_FRAME) >> 12;
	}
}

/* How often a read ended how, and how many pages it decoded. */
static uint64_t ended[3], pages, compared;

static void read_once(const struct bulk_ram *whole, const struct bulk_decoder *decoder, int quiet)
{
	const int levels = 4 + (int)below_of(2), bottom = 1 + (int)below_of(3);
	const uint64_t page = UINT64_C(1) << (3 + 9 * bottom), top = UINT64_C(1) << (12 + 9 * levels - 1);
	uint64_t count = below_of(4) ? below_of(3000) : below_of(40);
	uint64_t start, odd = 0, root = below_of(20) ? frame_of(below_of(frames)) : next(&ours);
	struct bulk_reading out;
	int end;

	if (count >= top / page)
		count = top / page - 1;
	start = below_of(top / page - count) * page;
	if (!below_of(4))	/* where a table of the highest level begins or ends */
		start = below_of(2) ? start >> (3 + 9 * levels) << (3 + 9 * levels) : top - (count + 1) * page;
	if (!below_of(8))	/* no caller does that; it must be safe */
		start |= below_of(page);
	out = (struct bulk_reading){
		.start = start, .count = count, .bottom = bottom,
		.entries = malloc(8 * count + !count), .levels = malloc(count + !count),
		.states = malloc(4 * count + !count), .known = malloc(4 * count + !count),
	};
	must(out.entries && out.levels && out.states && out.known, "no memory");
	end = bulk_read(whole, decoder, root, levels, &out);
	ended[end]++;
	must(!quiet || end != BULK_CHANGED, "nobody has changed it");
	if (end == BULK_OUTSIDE)
		must(!is_ram(out.outside), "the frame lies inside");
	for (uint64_t i = 0; end == BULK_DONE && i < count; i++) {
		const int level = out.alike ? out.alike_level : out.levels[i];
		uint64_t entry = 0;

		must(level >= bottom && level <= levels, "no such level");
		must((out.alike ? out.alike_state : out.states[i]) == state_of(out.entries[i], level), "state of another entry");
		must((out.alike ? out.alike_known : out.known[i]) == known_of(decoder, out.entries[i]), "known of another entry");
		odd += known_of(decoder, out.entries[i]) == decoder->odd;
		pages++;
		if (!quiet || below_of(16))
			continue;
		must(walk_to(root, levels, bottom, (start / page + i) * page, &entry) == level, "another level");
		must(entry == out.entries[i], "another entry");
		compared++;
	}
	must(end != BULK_DONE || !count || odd == out.odd, "miscounted");
	free(out.entries);
	free(out.levels);
	free(out.states);
	free(out.known);
}

static void path_once(const struct bulk_ram *whole, int quiet)
{
	const int levels = 4 + (int)below_of(2);
	struct bulk_step *steps = malloc((size_t)levels * sizeof(*steps));
	const uint64_t root = frame_of(below_of(frames)), address = next(&ours);
	uint64_t outside = 0, entry = 0;
	int count, level;

	must(steps != NULL, "no memory");
	count = bulk_path(whole, root, levels, address, steps, &outside);
	must(count >= 0 && count <= levels, "too many steps");
	for (int i = 0; i < count; i++)
		must(steps[i].level == levels - i && steps[i].slot >= 0 && steps[i].slot < 512, "no such step");
	must(count || !is_ram(outside), "the frame lies inside");
	if (quiet) {
		level = walk_to(root, levels, 1, address, &entry);
		must(count == (level ? levels - level + 1 : 0), "another number of steps");
		must(!count || steps[count - 1].entry == entry, "another entry");
	}
	free(steps);
}

static void decode_once(const struct bulk_decoder *decoder)
{
	const uint64_t count = below_of(1500), usual = hostile_entry(&ours), offset = below_of(9), length = below_of(200);
	const int above_level = (int)below_of(2);
	uint64_t *entries = malloc(8 * count + !count), odd = 0, counted;
	uint32_t *states = malloc(4 * count + !count), *known = malloc(4 * count + !count);
	char *bytes = malloc(offset + length + 1);

	must(entries && states && known && bytes, "no memory");
	for (uint64_t i = 0; i < count; i++)
		entries[i] = below_of(3) ? usual : hostile_entry(&ours);
	counted = bulk_decode(decoder, entries, count, above_level, states, known);
	for (uint64_t i = 0; i < count; i++) {
		must(states[i] == state_of(entries[i], 1 + above_level), "decoded to another state");
		must(known[i] == known_of(decoder, entries[i]), "decoded to know another thing");
		odd += known[i] == decoder->odd;
	}
	must(counted == odd, "decoded and miscounted");
	memset(bytes, (int)below_of(256), offset + length + 1);
	bulk_sum(next(&ours), bytes + offset, length + 1);
	free(entries);
	free(states);
	free(known);
	free(bytes);
}

/* Entries that are nonsense, or that make tables out of all frames. */
static void fill_ram(void)
{
	const uint64_t kind = below_of(5);

	for (uint64_t i = 0; i < frames * 512; i++) {
		switch (kind) {
		case 0:
			ram[i] = next(&ours);
			break;
		case 1:
			ram[i] = hostile_entry(&ours);
			break;
		case 2:	/* each frame is a table whose entries are itself */
			ram[i] = frame_of(i / 512) << 12 | 0x67;
			break;
		case 3:
			ram[i] = ~UINT64_C(0);
			break;
		default:
			ram[i] = below_of(8) ? frame_of(below_of(frames)) << 12 | 0x67 : hostile_entry(&ours);
			break;
		}
	}
}

static void play(void)
{
	const size_t edge = 4096;
	struct bulk_decoder decoder = { low_table, 1 | UINT64_C(1) << 58, 1, 1, 2, ~UINT32_C(0) };
	struct bulk_ram whole;
	size_t bytes;
	char *mapped;
	int quiet = !below_of(3);

	frames = 1 + (below_of(4) ? below_of(600) : below_of(MOST_FRAMES));
	below = below_of(3) ? frames : below_of(frames + 1);
	above = frames - below;
	bytes = frames * 4096;
	mapped = mmap(NULL, bytes + 2 * edge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(mapped != MAP_FAILED && !mprotect(mapped + edge, bytes, PROT_READ | PROT_WRITE), "no memory");
	ram = (uint64_t *)(void *)(mapped + edge);
	whole = (struct bulk_ram){ ram, below, above };
	fill_ram();
	if (!below_of(10)) {
		decoder.plain_mask = next(&ours) | 1;
		decoder.plain = (next(&ours) & decoder.plain_mask) | 1;
	}
#ifdef CHANGE_AT_READS
	static const int rates[] = { 1, 2, 8, 64, 1000, 20000 };

	one_in = quiet ? 0 : rates[below_of(sizeof(rates) / sizeof(rates[0]))];
#else
	pthread_t thread;

	__atomic_store_n(&stop, 0, __ATOMIC_RELAXED);
	if (!quiet)
		must(!pthread_create(&thread, NULL, change_all_the_time, NULL), "no thread");
#endif
	for (int i = 0; i < READS; i++) {
		read_once(&whole, &decoder, quiet);
		path_once(&whole, quiet);
		decode_once(&decoder);
	}
#ifndef CHANGE_AT_READS
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	if (!quiet)
		pthread_join(thread, NULL);
#endif
	munmap(mapped, bytes + 2 * edge);
}

int main(int count, char **arguments)
{
	const uint64_t rounds = count > 1 ? strtoull(arguments[1], NULL, 0) : 100;

	ours.a = (count > 2 ? strtoull(arguments[2], NULL, 0) : 1) * UINT64_C(0x9E3779B97F4A7C15) + 1;
	ours.b = ~ours.a;
	for (int i = 0; i < 20; i++)
		next(&ours);
	for (int i = 0; i < 8192; i++)
		low_table[i] = (uint32_t)next(&ours);
	for (uint64_t i = 0; i < rounds; i++)
		play();
	printf("done %llu changed %llu outside %llu pages %llu compared %llu changes %llu\n",
	       (unsigned long long)ended[BULK_DONE], (unsigned long long)ended[BULK_CHANGED],
	       (unsigned long long)ended[BULK_OUTSIDE], (unsigned long long)pages, (unsigned long long)compared,
	       (unsigned long long)changed);
	return 0;
}
