/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accesses that can be left while they have not been made, and of which it is known afterwards whether they were.
 *
 * Each returns 0 when it was made, and 1 when it was not: `*withdrawn` was set before it began, or a signal handler
 * has left it.
 */
#ifndef UFFDLAB_ACCESSES_H
#define UFFDLAB_ACCESSES_H

#include <stdint.h>

int lab_access_read(const int *withdrawn, uint64_t address, uint64_t *value);
int lab_access_write(const int *withdrawn, uint64_t address, uint64_t value);
int lab_access_modify(const int *withdrawn, uint64_t address, uint64_t add, uint64_t *before);
int lab_access_copy(const int *withdrawn, uint64_t address, void *buffer, uint64_t length);
int lab_access_syscall(const int *withdrawn, long number, const uint64_t *arguments, int64_t *returned);

/*
 * For a signal handler, with its ucontext: have the interrupted access return 1.  Returns 0, and changes nothing, when
 * the signal has interrupted anything else, an access that was made included.
 */
int lab_leave_access(void *context);

#endif
