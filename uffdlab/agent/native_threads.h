/* SPDX-License-Identifier: GPL-2.0-only */
/* Declarations that the files of the native core share. */
#ifndef UFFDLAB_THREADS_H
#define UFFDLAB_THREADS_H

#include <pthread.h>

int lab_start_thread(pthread_t *thread, void *(*run)(void *), void *argument);

#endif
