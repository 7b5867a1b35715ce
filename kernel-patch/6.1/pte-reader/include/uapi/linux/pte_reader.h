/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/pte_reader: the page table entries of a process, as they are.
 *
 * The layout is the same for 32-bit and 64-bit callers; everything is in the
 * byte order of the machine.
 */
#ifndef _UAPI_LINUX_PTE_READER_H
#define _UAPI_LINUX_PTE_READER_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* At most this many entries with one PTE_READER_READ */
#define PTE_READER_MAX_COUNT	(1U << 20)

/*
 * Where the walk for one address ended, and what was found there.
 *
 * level is 1 for a PTE, 2 for a PMD, 3 for a PUD, 4 for a P4D and 5 for a PGD
 * entry, and 0 when the address is in no mapping. (Where the machine has fewer
 * levels, the ones it lacks do not occur.)
 *
 * The walk ends above level 1 at a huge page, at a swap or migration entry for
 * one, or at an empty entry: there is no page table below it. entry is zero if
 * nothing is there, on x86; it is never cleaned up or translated.
 */
struct pte_reader_entry {
	__u64 entry;
	__u32 level;
	__u32 reserved;		/* zero */
};

/*
 * PTE_READER_READ: read the entries for start, start + stride, ... of the
 * process pid, as seen from the caller's pid namespace, into an array of count
 * struct pte_reader_entry at the address entries.
 *
 * start and stride have to be multiples of the page size. stride allows to ask
 * once for each huge page; 0 stands for the page size. The entries are read one
 * after the other, not at one instant.
 *
 * Needs CAP_SYS_ADMIN (EPERM). EINVAL: flags not zero, count zero, start or
 * stride not aligned, or a range that leaves the user address space. E2BIG:
 * count is above PTE_READER_MAX_COUNT. ESRCH: there is no such process, it has
 * no user memory, or it has gone or called execve() meanwhile. EFAULT: entries
 * cannot be written to. EINTR: a fatal signal arrived. On any error the array
 * may have been written in part.
 */
struct pte_reader_request {
	__s32 pid;
	__u32 flags;		/* zero */
	__u64 start;
	__u64 count;
	__u64 stride;
	__u64 entries;
};

#define PTE_READER_READ		_IOW(0xBB, 0x00, struct pte_reader_request)

#endif /* _UAPI_LINUX_PTE_READER_H */
