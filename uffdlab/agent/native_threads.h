/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the native core share with each other. */
#ifndef UFFDLAB_THREADS_H
#define UFFDLAB_THREADS_H

#include <pthread.h>

int lab_start_thread(pthread_t *thread, void *(*run)(void *), void *argument);

#endif
