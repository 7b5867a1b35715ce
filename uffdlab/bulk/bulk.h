/* Operations on millions of entries.  Declarations without preprocessor directives: cffi parses this file itself. */

/* decode.c: states of entries by their low bits.  The caller decodes entries that need more than these bits. */
struct bulk_decoder {
	const uint32_t *low;	/* [8192]: states by bits 11:0, and bit 12 set for an entry above the PTE level */
	uint64_t plain_mask;	/* an entry with these bits ... */
	uint64_t plain;		/* ... equal to this is decoded by `low` alone */
	uint32_t known_plain;
	uint32_t known_empty;	/* of an entry that is 0 */
	uint32_t odd;		/* the value of `known` for any other entry */
};

/* Returns how many entries are neither plain nor empty.  `above`: they are above the PTE level. */
uint64_t bulk_decode(const struct bulk_decoder *decoder, const uint64_t *entries, uint64_t count, int above,
		     uint32_t *states, uint32_t *known);

/* sum.c: returns the checksum `total`, extended by more bytes. */
uint64_t bulk_sum(uint64_t total, const void *bytes, uint64_t length);

/* walk.c: page tables in a guest's RAM, which may change during the walk. */
struct bulk_ram {
	const uint64_t *frames;	/* the RAM file, 512 entries for each frame */
	uint64_t below;		/* number of frames below 4 GiB: the first part of the file */
	uint64_t above;		/* number of frames from 4 GiB on: the rest of the file */
};

enum bulk_end { BULK_DONE, BULK_CHANGED, BULK_OUTSIDE };

struct bulk_reading {
	uint64_t start;		/* address of the first page */
	uint64_t count;		/* of pages, one entry of level `bottom` each */
	int bottom;
	uint64_t *entries;	/* out, [count] each */
	uint8_t *levels;
	uint32_t *states;
	uint32_t *known;
	uint64_t odd;		/* out: as bulk_decode() returns it */
	int alike;		/* out: all pages have the next three values, and only `entries` was written */
	uint8_t alike_level;
	uint32_t alike_state;
	uint32_t alike_known;
	uint64_t outside;	/* out, BULK_OUTSIDE: the frame that is not RAM */
};

/*
 * Reads one entry for each page.  An entry above the bottom that does not
 * point to a table is stored, with its own level, for every page in its range.
 * Each table is read twice, and then the entry that points to it once more;
 * returns BULK_CHANGED if any of them differed.
 */
int bulk_read(const struct bulk_ram *ram, const struct bulk_decoder *decoder, uint64_t root, int levels,
	      struct bulk_reading *reading);

struct bulk_step {
	uint64_t table;		/* its frame */
	uint64_t entry;
	int level;
	int slot;
};

/* Walks to an address; returns the number of steps (at most `levels`), or 0 and in *outside the frame that is not RAM. */
int bulk_path(const struct bulk_ram *ram, uint64_t root, int levels, uint64_t address, struct bulk_step *steps,
	      uint64_t *outside);
