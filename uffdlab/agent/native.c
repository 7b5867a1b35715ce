// SPDX-License-Identifier: GPL-2.0-only
/*
 * The agent's native core: ioctls with their errno and time, and touches.
 *
 * Nothing here takes the interpreter's lock.  A touch that waits for a page
 * fault waits on a thread of its own, so that Python goes on and can resolve it.
 * The structures of userfaultfd come from the project's own declarations
 * (uffdlab/uapi.py), so this builds against headers of any age.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef __NR_userfaultfd
#if defined(__x86_64__)
#define __NR_userfaultfd 323
#else
#define __NR_userfaultfd 282
#endif
#endif

#include "native.h"

/* What only the thread and its signal handler look at. */
struct lab_inside {
	int withdrawn;
	pthread_t thread;
	sigjmp_buf way_out;
};

int64_t lab_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int lab_ioctl(int fd, unsigned long request, void *argument, int64_t *started_ns, int64_t *ended_ns)
{
	int error;

	*started_ns = lab_now_ns();
	error = ioctl(fd, request, argument) < 0 ? -errno : 0;
	*ended_ns = lab_now_ns();
	return error;
}

int lab_userfaultfd(int flags)
{
	long fd = syscall(__NR_userfaultfd, flags);

	return fd < 0 ? -errno : (int)fd;
}

int lab_memfd(const char *name, unsigned int flags)
{
	int fd = memfd_create(name, flags);

	return fd < 0 ? -errno : fd;
}

int lab_map(uint64_t hint, uint64_t length, int protection, int flags, int fd, uint64_t *address)
{
	void *where = mmap((void *)hint, length, protection, flags, fd, 0);

	if (where == MAP_FAILED)
		return -errno;
	*address = (uint64_t)where;
	return 0;
}

int lab_unmap(uint64_t address, uint64_t length)
{
	return munmap((void *)address, length) ? -errno : 0;
}

int lab_madvise(uint64_t address, uint64_t length, int advice)
{
	return madvise((void *)address, length, advice) ? -errno : 0;
}

int lab_die_with_parent(void)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) ? -errno : 0;
}

void lab_poke(uint64_t address, const void *bytes, uint64_t length)
{
	memcpy((void *)address, bytes, length);
}

/*
 * A touch's thread has a pointer to its touch here; the handler for SIGBUS and
 * SIGSEGV (the kernel says no) and for SIGUSR1 (we want it back) jumps out of
 * the access.  A thread that waits for a userfaultfd in user mode sleeps
 * interruptibly, so the signal reaches it and the fault is taken back.
 */
static __thread struct lab_touch *current_touch;

static void leave_touch(int number, siginfo_t *info, void *context)
{
	struct lab_touch *touch = current_touch;

	(void)context;
	if (!touch) {
		if (number == SIGUSR1)
			return;
		signal(number, SIG_DFL);
		raise(number);
		return;
	}
	if (number == SIGUSR1 && !__atomic_load_n(&touch->inside->withdrawn, __ATOMIC_ACQUIRE))
		return;
	touch->signal_number = number;
	touch->signal_code = info->si_code;
	touch->signal_address = number == SIGUSR1 ? 0 : (uint64_t)info->si_addr;
	siglongjmp(touch->inside->way_out, 1);
}

static void install_handler(void)
{
	struct sigaction action = { .sa_sigaction = leave_touch, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
}

static void access_memory(struct lab_touch *touch)
{
	volatile uint64_t *word = (volatile uint64_t *)touch->address;
	uint64_t offset;

	switch (touch->kind) {
	case LAB_TOUCH_READ:
		touch->value = *word;
		break;
	case LAB_TOUCH_WRITE:
		*word = touch->value;
		break;
	case LAB_TOUCH_FILL:	/* a mark in every page: value, value + 1, … */
		for (offset = 0; offset < touch->length; offset += touch->stride)
			*(volatile uint64_t *)(touch->address + offset) = touch->value++;
		break;
	case LAB_TOUCH_COPY_OUT:
		memcpy(touch->buffer, (const void *)touch->address, touch->length);
		break;
	}
}

static void *touch_thread(void *argument)
{
	struct lab_touch *touch = argument;
	int state = LAB_TOUCH_DONE;
	const uint64_t one = 1;

	__atomic_store_n(&touch->thread_id, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	touch->started_ns = lab_now_ns();
	if (sigsetjmp(touch->inside->way_out, 1) == 0) {
		current_touch = touch;
		if (!__atomic_load_n(&touch->inside->withdrawn, __ATOMIC_ACQUIRE))
			access_memory(touch);
		else
			state = LAB_TOUCH_WITHDRAWN;
	} else {
		state = touch->signal_number == SIGUSR1 ? LAB_TOUCH_WITHDRAWN : LAB_TOUCH_SIGNAL;
	}
	current_touch = NULL;
	touch->ended_ns = lab_now_ns();
	__atomic_store_n(&touch->state, state, __ATOMIC_RELEASE);
	while (write(touch->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	return NULL;
}

/* Every native thread is made here: small stack, no signals but the three. */
static int start_thread(pthread_t *thread, void *(*run)(void *), void *argument)
{
	sigset_t blocked, before;
	pthread_attr_t attributes;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGUSR1);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(thread, &attributes, run, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -error;
}

int lab_touch_start(struct lab_touch *touch)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int error;

	pthread_once(&once, install_handler);
	touch->inside = calloc(1, sizeof(*touch->inside));
	if (!touch->inside)
		return -ENOMEM;
	touch->state = LAB_TOUCH_STARTED;
	touch->thread_id = 0;
	error = start_thread(&touch->inside->thread, touch_thread, touch);
	if (error)
		free(touch->inside);
	return error;
}

int lab_touch_state_of(struct lab_touch *touch)
{
	return __atomic_load_n(&touch->state, __ATOMIC_ACQUIRE);
}

/* Ask a waiting touch to come back; it ends as WITHDRAWN unless it ended already. */
int lab_touch_withdraw(struct lab_touch *touch)
{
	__atomic_store_n(&touch->inside->withdrawn, 1, __ATOMIC_RELEASE);
	return -pthread_kill(touch->inside->thread, SIGUSR1);
}

/* Only after it ended: waits the moment until the thread is gone, and frees what it used. */
void lab_touch_join(struct lab_touch *touch)
{
	pthread_join(touch->inside->thread, NULL);
	free(touch->inside);
	touch->inside = NULL;
}

static int64_t spin_until_ns;

static void *spin(void *argument)
{
	volatile uint64_t turns = 0;

	(void)argument;
	/* plain user-mode work between two looks at the clock */
	while (lab_now_ns() < __atomic_load_n(&spin_until_ns, __ATOMIC_RELAXED))
		for (int i = 0; i < 20000; i++)
			turns++;
	return NULL;
}

int lab_spin_start(int64_t for_ns)
{
	pthread_t thread;
	int error;

	__atomic_store_n(&spin_until_ns, lab_now_ns() + for_ns, __ATOMIC_RELAXED);
	error = start_thread(&thread, spin, NULL);
	if (!error)
		pthread_detach(thread);
	return error;
}

void lab_spin_stop(void)
{
	__atomic_store_n(&spin_until_ns, 0, __ATOMIC_RELAXED);
}
