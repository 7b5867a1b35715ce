// SPDX-License-Identifier: GPL-2.0-only
/*
 * Touches: accesses to memory that may fault.
 *
 * A touch waits for a page fault on its own thread, or in a forked child, so
 * that Python continues and can resolve the fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "native.h"
#include "native_accesses.h"
#include "native_threads.h"

/* Private state of a touch. */
struct lab_touch_private {
	pthread_t thread;
};

/*
 * A pointer to the touch that this thread makes.  The handler for SIGBUS and
 * SIGSEGV (the access is refused) and for SIGUSR1 (it is withdrawn) leaves the
 * access, unless it was made already.  A thread that waits for a userfaultfd
 * in user mode sleeps interruptibly, so the signal reaches it and ends the
 * fault.
 */
static __thread struct lab_touch *current_touch;
static struct sigaction previous_sigbus, previous_sigsegv;

static void leave_touch(int number, siginfo_t *info, void *context)
{
	struct lab_touch *touch = current_touch;

	if (number == SIGUSR1) {
		if (touch && __atomic_load_n(&touch->withdrawn, __ATOMIC_ACQUIRE))
			lab_leave_access(context);
		return;
	}
	/* si_code > 0: the kernel sent it for this access, not another process */
	if (touch && info->si_code > 0 && lab_leave_access(context)) {
		touch->signal_number = number;
		touch->signal_code = info->si_code;
		touch->signal_address = (uint64_t)info->si_addr;
		return;
	}
	/* Not from a touch: restore the previous handler.  The instruction then faults again. */
	sigaction(number, number == SIGBUS ? &previous_sigbus : &previous_sigsegv, NULL);
	if (info->si_code <= 0)
		raise(number);
}

static void install_handler(void)
{
	struct sigaction action = { .sa_sigaction = leave_touch, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, &previous_sigbus);
	sigaction(SIGSEGV, &action, &previous_sigsegv);
	sigaction(SIGUSR1, &action, NULL);
}

static pthread_once_t handler_installed = PTHREAD_ONCE_INIT;

/* Like the functions in native_accesses.h, these return 1 for an access that was not made. */
static int access_value(struct lab_touch *touch, int kind, uint64_t address, uint64_t value, uint64_t *before)
{
	switch (kind) {
	case LAB_TOUCH_WRITE:
		*before = value;
		return lab_access_write(&touch->withdrawn, address, value);
	case LAB_TOUCH_MODIFY:
		return lab_access_modify(&touch->withdrawn, address, value, before);
	default:
		return lab_access_read(&touch->withdrawn, address, before);
	}
}

static int fill(struct lab_touch *touch)	/* every page gets another value */
{
	const uint64_t count = touch->stride ? (touch->length + touch->stride - 1) / touch->stride : 0;

	for (uint64_t i = 0; i < count; i++) {
		if (lab_access_write(&touch->withdrawn, touch->address + i * touch->stride, touch->value + i))
			return 1;
		__atomic_store_n(&touch->progress, i + 1, __ATOMIC_RELAXED);
	}
	return 0;
}

static int sweep(struct lab_touch *touch)
{
	const uint64_t count = touch->stride ? touch->length / touch->stride : 0;
	uint64_t at = touch->first, sum = 0, before = 0;

	for (uint64_t i = 0; i < count; i++) {
		if (access_value(touch, touch->each, touch->address + at * touch->stride, touch->value, &before))
			return 1;
		sum += before;
		__atomic_store_n(&touch->progress, i + 1, __ATOMIC_RELAXED);
		at = (at + touch->jump) % count;
	}
	touch->value = sum;
	return 0;
}

static int access_memory(struct lab_touch *touch)
{
	switch (touch->kind) {
	case LAB_TOUCH_FILL:
		return fill(touch);
	case LAB_TOUCH_SWEEP:
		return sweep(touch);
	case LAB_TOUCH_COPY_OUT:
		return lab_access_copy(&touch->withdrawn, touch->address, touch->buffer, touch->length);
	case LAB_TOUCH_SYSCALL:
		return lab_access_syscall(&touch->withdrawn, touch->number, touch->arguments, &touch->returned);
	default:
		return access_value(touch, touch->kind, touch->address, touch->value, &touch->value);
	}
}

static int make_touch(struct lab_touch *touch)
{
	if (access_memory(touch))
		return touch->signal_number ? LAB_TOUCH_SIGNAL : LAB_TOUCH_WITHDRAWN;
	/* EINTR counts as a withdrawal only if one was requested. */
	if (touch->kind == LAB_TOUCH_SYSCALL && touch->returned == -EINTR &&
	    __atomic_load_n(&touch->withdrawn, __ATOMIC_ACQUIRE))
		return LAB_TOUCH_WITHDRAWN;
	return LAB_TOUCH_DONE;
}

static void run_touch(struct lab_touch *touch)
{
	const uint64_t increment = 1;
	int state;

	touch->signal_number = 0;
	touch->returned = 0;
	__atomic_store_n(&touch->thread_id, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	touch->started_ns = lab_now_ns();
	current_touch = touch;
	state = make_touch(touch);
	current_touch = NULL;
	touch->ended_ns = lab_now_ns();
	__atomic_store_n(&touch->state, state, __ATOMIC_RELEASE);
	while (write(touch->done_fd, &increment, sizeof(increment)) < 0 && errno == EINTR)
		;
}

static void *touch_thread(void *argument)
{
	run_touch(argument);
	return NULL;
}

int lab_touch_start(struct lab_touch *touch)
{
	int error;

	pthread_once(&handler_installed, install_handler);
	touch->private_state = calloc(1, sizeof(*touch->private_state));
	if (!touch->private_state)
		return -ENOMEM;
	touch->state = LAB_TOUCH_STARTED;
	touch->thread_id = 0;
	error = lab_start_thread(&touch->private_state->thread, touch_thread, touch);
	if (error)
		free(touch->private_state);
	return error;
}

int lab_touch_state_of(struct lab_touch *touch)
{
	return __atomic_load_n(&touch->state, __ATOMIC_ACQUIRE);
}

/* Asks a waiting touch to return; it ends as WITHDRAWN if it has not ended already. */
int lab_touch_withdraw(struct lab_touch *touch)
{
	__atomic_store_n(&touch->withdrawn, 1, __ATOMIC_RELEASE);
	return -pthread_kill(touch->private_state->thread, SIGUSR1);
}

/* Call this only after the touch has ended: waits until its thread has exited, and frees its memory. */
void lab_touch_join(struct lab_touch *touch)
{
	pthread_join(touch->private_state->thread, NULL);
	free(touch->private_state);
	touch->private_state = NULL;
}

long lab_syscall_number(const char *name)
{
	static const struct {
		const char *name;
		long number;
	} calls[] = {
		{ "madvise", SYS_madvise }, { "mprotect", SYS_mprotect }, { "mremap", SYS_mremap },
		{ "munmap", SYS_munmap }, { "pread", SYS_pread64 }, { "pwrite", SYS_pwrite64 },
		{ "process_vm_readv", SYS_process_vm_readv }, { "process_vm_writev", SYS_process_vm_writev },
		{ "mlock", SYS_mlock }, { "munlock", SYS_munlock }, { "ioctl", SYS_ioctl },
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (strcmp(calls[i].name, name) == 0)
			return calls[i].number;
	return -1;
}

/*
 * Children.  A child runs only the code in this file.  Its one thread waits
 * for a byte, makes the touch in the memory that it shares with the target,
 * and writes to the target's eventfd.
 */
struct lab_touch *lab_shared_touch(void)
{
	void *shared = mmap(NULL, sizeof(struct lab_touch), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return shared == MAP_FAILED ? NULL : shared;
}

void lab_free_shared_touch(struct lab_touch *touch)
{
	munmap(touch, sizeof(*touch));
}

/* The child cannot report an error in another way: its parent reads the errno here after it has ended. */
static void exit_child(struct lab_touch *shared, int status)
{
	shared->returned = -errno;
	_exit(status);
}

static void close_from(struct lab_touch *shared, int first)
{
	struct rlimit limit;

	if (syscall(436 /* close_range, Linux 5.9 */, first, ~0U, 0) == 0)
		return;
	if (errno != ENOSYS || getrlimit(RLIMIT_NOFILE, &limit))
		exit_child(shared, LAB_CHILD_CLOSE_FAILED);
	for (int fd = first; (rlim_t)fd < limit.rlim_cur; fd++)
		close(fd);
}

/* The child keeps only these three: no copy of a userfaultfd or of the stream to the agent. */
static void keep_fds(struct lab_touch *shared, int go_fd, int done_fd, int value_fd)
{
	const int from[3] = { go_fd, done_fd, value_fd };
	int kept[3];

	for (int i = 0; i < 3; i++) {	/* first move them away from 0, 1 and 2 */
		kept[i] = fcntl(from[i], F_DUPFD, 3);
		if (kept[i] < 0)
			exit_child(shared, LAB_CHILD_NO_FDS);
	}
	for (int i = 0; i < 3; i++)
		if (dup2(kept[i], i) < 0)
			exit_child(shared, LAB_CHILD_NO_FDS);
	close_from(shared, 3);
}

static void serve_as_child(struct lab_touch *shared, int go_fd, int done_fd, int value_fd)
{
	char go;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	keep_fds(shared, go_fd, done_fd, value_fd);
	shared->done_fd = 1;
	for (;;) {
		ssize_t got = read(0, &go, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got != 1)
			_exit(LAB_CHILD_NO_MORE);
		run_touch(shared);
	}
}

/*
 * The first use of a thread's variables calls malloc.  Another thread may hold malloc's lock at the fork, and it is
 * never released in the child.  So the thread that forks uses its variables before.
 */
static void use_thread_variables(void)
{
	__atomic_store_n(&current_touch, NULL, __ATOMIC_SEQ_CST);
}

int lab_fork(struct lab_touch *shared, int go_fd, int value_fd, int64_t *started_ns, int64_t *ended_ns)
{
	const int done_fd = shared->done_fd;
	pid_t pid;

	pthread_once(&handler_installed, install_handler);
	use_thread_variables();
	*started_ns = lab_now_ns();
	/*
	 * Not fork(3): that holds the allocator's locks until the FORK event has
	 * been read, and reading it allocates.
	 */
	pid = (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, 0UL, 0UL, 0UL, 0UL);
	if (pid == 0)
		serve_as_child(shared, go_fd, done_fd, value_fd);
	*ended_ns = lab_now_ns();
	return pid < 0 ? -errno : pid;
}

void lab_touch_prepare(struct lab_touch *shared)
{
	shared->withdrawn = 0;
	shared->progress = 0;
	shared->started_ns = 0;
	__atomic_store_n(&shared->state, LAB_TOUCH_STARTED, __ATOMIC_RELEASE);
}

int lab_child_withdraw(int pidfd, struct lab_touch *shared)
{
	__atomic_store_n(&shared->withdrawn, 1, __ATOMIC_RELEASE);
	return lab_pidfd_signal(pidfd, SIGUSR1);
}
