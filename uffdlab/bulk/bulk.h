/* What is done to a million entries at a time.  Plain declarations, no preprocessor: cffi reads this file as it is. */

/* decode.c: states of entries by their low bits; what these do not tell is left to the caller. */
struct bulk_decoder {
	const uint32_t *low;	/* [8192]: states by bits 11:0, and bit 12 set for an entry above the PTE level */
	uint64_t plain_mask;	/* an entry with these bits ... */
	uint64_t plain;		/* ... equal to this is told by `low` alone */
	uint32_t known_plain;
	uint32_t known_empty;	/* of an entry that is 0 */
	uint32_t odd;		/* stands in `known` for any other entry */
};

/* Gives how many entries are neither plain nor empty.  `above`: they lie above the PTE level. */
uint64_t bulk_decode(const struct bulk_decoder *decoder, const uint64_t *words, uint64_t count, int above,
		     uint32_t *states, uint32_t *known);

/* sum.c: carries a sum on over more bytes. */
uint64_t bulk_sum(uint64_t total, const void *bytes, uint64_t length);

/* walk.c: page tables in a guest's RAM, which changes meanwhile. */
struct bulk_ram {
	const uint64_t *words;	/* the RAM file, 512 words a frame */
	uint64_t below;		/* frames below 4 GiB: the first ones of the file */
	uint64_t above;		/* frames from 4 GiB on: the rest of it */
};

enum bulk_end { BULK_DONE, BULK_CHANGED, BULK_OUTSIDE };

struct bulk_reading {
	uint64_t start;		/* address of the first page */
	uint64_t count;		/* of pages, one entry of level `bottom` each */
	int bottom;
	uint64_t *words;	/* out, [count] each */
	uint8_t *levels;
	uint32_t *states;
	uint32_t *known;
	uint64_t odd;		/* out: as bulk_decode() gives it */
	int alike;		/* out: all pages are as the next three say, and only `words` was written */
	uint8_t level;
	uint32_t state;
	uint32_t told;		/* what is known */
	uint64_t outside;	/* out, BULK_OUTSIDE: the frame that is not RAM */
};

/*
 * Reads an entry a page.  Where an entry above the bottom is no table, it
 * stands with its own level for all that lies below it.  Each table is read
 * twice in a row and the entry that points to it once more afterwards;
 * BULK_CHANGED if any of that differed.
 */
int bulk_read(const struct bulk_ram *ram, const struct bulk_decoder *decoder, uint64_t root, int levels,
	      struct bulk_reading *reading);

struct bulk_step {
	uint64_t table;		/* its frame */
	uint64_t word;
	int level;
	int slot;
};

/* Walks to one address; gives the number of steps (levels at most), or 0 with the frame that is not RAM in *outside. */
int bulk_path(const struct bulk_ram *ram, uint64_t root, int levels, uint64_t address, struct bulk_step *steps,
	      uint64_t *outside);
