// SPDX-License-Identifier: GPL-2.0-only
/* A checksum as fast as memory: the exclusive-or of the 64-bit units and of the number of bytes. */
#include <stdint.h>
#include <string.h>

#include "bulk.h"
#include "inner.h"

CLONES uint64_t bulk_sum(uint64_t total, const void *bytes, uint64_t length)
{
	const uint64_t whole = length / 8;
	uint64_t folded = 0, last = 0, value;

	for (uint64_t i = 0; i < whole; i++) {
		memcpy(&value, (const char *)bytes + 8 * i, sizeof(value));
		folded ^= value;
	}
	memcpy(&last, (const char *)bytes + 8 * whole, length % 8);
	return total * 31 ^ folded ^ last ^ length;
}
