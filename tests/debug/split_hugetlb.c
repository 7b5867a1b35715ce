// SPDX-License-Identifier: GPL-2.0-only
/* Splits a shared mapping of two huge pages in two, which is all that docs/findings/hugetlb-split.md needs. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>

int main(void)
{
	const size_t huge = 2 << 20;
	char *start = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (start == MAP_FAILED || mprotect(start, huge, PROT_READ)) {
		perror("split_hugetlb");
		return 1;
	}
	return 0;
}
