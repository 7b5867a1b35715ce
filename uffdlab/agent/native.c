// SPDX-License-Identifier: GPL-2.0-only
/*
 * The agent's native core: system calls with their errno and time.
 *
 * Nothing here takes the interpreter's lock.  The structures of userfaultfd
 * come from the project's own declarations (uffdlab/uapi/flags.py), so this builds
 * against headers of any age.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "native.h"
#include "native_threads.h"

#ifndef __NR_userfaultfd
#if defined(__x86_64__)
#define __NR_userfaultfd 323
#else
#define __NR_userfaultfd 282
#endif
#endif
#ifndef __NR_fsopen
#define __NR_fsopen 430
#define __NR_fsconfig 431
#define __NR_fsmount 432
#endif

enum { LAB_FSCONFIG_SET_STRING = 1, LAB_FSCONFIG_CMD_CREATE = 6 };	/* linux/mount.h */

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

int lab_batch_run(int fd, unsigned long request, struct lab_batch *batch)
{
	uint64_t argument[5];
	int error = 0;

	batch->started_ns = lab_now_ns();
	for (batch->done = 0; batch->done < batch->count; batch->done++) {
		memcpy(argument, batch->argument, sizeof(argument));
		argument[0] += batch->done * batch->step;
		if (ioctl(fd, request, argument) < 0) {
			error = -errno;
			break;
		}
	}
	batch->ended_ns = lab_now_ns();
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

/* Makes a tmpfs that is not mounted; returns a descriptor of its root. */
int lab_detached_tmpfs(const char *huge)
{
	int context = (int)syscall(__NR_fsopen, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
	int result;

	if (context < 0)
		return -errno;
	if (syscall(__NR_fsconfig, context, LAB_FSCONFIG_SET_STRING, "huge", huge, 0) < 0 ||
	    syscall(__NR_fsconfig, context, LAB_FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		result = -errno;
	else if ((result = (int)syscall(__NR_fsmount, context, 1 /* FSMOUNT_CLOEXEC */, 0)) < 0)
		result = -errno;
	close(context);
	return result;
}

int lab_map(uint64_t hint, uint64_t length, int protection, int flags, int fd, uint64_t *address)
{
	void *mapped = mmap((void *)hint, length, protection, flags, fd, 0);

	if (mapped == MAP_FAILED)
		return -errno;
	*address = (uint64_t)mapped;
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

/* mremap with an old size of 0 maps the pages of a shared mapping again (mremap(2)). */
int lab_duplicate_mapping(uint64_t address, uint64_t length, uint64_t hint, uint64_t *duplicate)
{
	/* reserve the addresses first, so that no other mapping is replaced */
	void *reserved = mmap((void *)hint, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (reserved == MAP_FAILED)
		return -errno;
	if (mremap((void *)address, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, reserved) == MAP_FAILED) {
		const int error = errno;

		munmap(reserved, length);
		return -error;
	}
	*duplicate = (uint64_t)reserved;
	return 0;
}

int lab_swap_on(const char *disk)
{
	return swapon(disk, 0) ? -errno : 0;
}

int lab_pidfd_open(int pid)
{
	long fd = syscall(434 /* pidfd_open, Linux 5.3 */, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}

int lab_pidfd_signal(int pidfd, int number)
{
	return syscall(424 /* pidfd_send_signal, Linux 5.1 */, pidfd, number, NULL, 0) ? -errno : 0;
}

int lab_die_with_parent(void)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) ? -errno : 0;
}

int lab_stream_pair(int *pair)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ? -errno : 0;
}

int lab_mount(const char *type, const char *target, unsigned long flags)
{
	return mount(type, target, type, flags, NULL) ? -errno : 0;
}

int lab_insert_module(int fd)
{
	return syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
}

void lab_power_off(void)
{
	reboot(RB_POWER_OFF);
}

void lab_ignore_interrupts(void)
{
	signal(SIGINT, SIG_IGN);
}

void lab_poke(uint64_t address, const void *bytes, uint64_t length)
{
	memcpy((void *)address, bytes, length);
}

/* Starts a native thread: a small stack, and all signals blocked except the three that touches handle. */
int lab_start_thread(pthread_t *thread, void *(*run)(void *), void *argument)
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

static int64_t spin_until_ns;

static void *spin(void *argument)
{
	volatile uint64_t turns = 0;

	(void)argument;
	/* only user-mode work between two reads of the clock */
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
	error = lab_start_thread(&thread, spin, NULL);
	if (!error)
		pthread_detach(thread);
	return error;
}

void lab_spin_stop(void)
{
	__atomic_store_n(&spin_until_ns, 0, __ATOMIC_RELAXED);
}
