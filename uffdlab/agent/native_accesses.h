/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Accesses that a signal handler can leave before they are made.  It is always known whether they were made.
 *
 * Each returns 0 if it was made, and 1 if not: `*withdrawn` was set before it began, or a signal handler has left it.
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
 * For a signal handler, with its ucontext: lets the interrupted access return 1.  Returns 0, and changes nothing, if
 * the signal has interrupted anything else, also an access that was made.
 */
int lab_leave_access(void *context);

#endif
