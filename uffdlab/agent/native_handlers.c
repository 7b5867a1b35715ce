// SPDX-License-Identifier: GPL-2.0-only
/*
 * Handlers: loops that read a userfaultfd's messages and resolve the faults by
 * a fixed policy, without the interpreter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "native.h"
#include "native_threads.h"

/* linux/userfaultfd.h, see uffdlab/uapi/flags.py */
#define UFFD(access, nr, fields)		((access) << 30 | (unsigned long)(8 * (fields)) << 16 | 0xAAUL << 8 | (nr))
#define LAB_WAKE			UFFD(2UL, 0x02, 2)
#define LAB_IOCTL(nr, fields)		UFFD(3UL, nr, fields)

enum { EVENT_PAGEFAULT = 0x12, FAULT_WP = 1 << 1, FAULT_MINOR = 1 << 2, FAULT_RWP = 1 << 3 };
enum { MODE_WP = 1 << 1 };	/* of COPY and CONTINUE */
enum { AT_ONCE = 16, TRIES = 10, MAX_PENDING = 256, PAUSE_MS = 1 };
#define LONGEST_NS	INT64_C(5000000000)	/* a fault is tried again for so long */

struct message {
	uint8_t event;
	uint8_t unused[7];
	uint64_t flags, address, thread;
};

struct fault {
	struct message message;
	int64_t read_ns;
};

/*
 * While an event waits to be read, ioctls that fill pages fail with EAGAIN (mmap_changing in fs/userfaultfd.c), and it
 * is this loop that has to read it.  So these faults stay pending, and are tried again after the next messages.
 */
struct lab_handler_private {
	pthread_t thread;
	int stop_fd;
	struct fault pending[MAX_PENDING];
	int count;
};

static int resolve(const struct lab_handler *handler, int policy, uint64_t page, int rwp)
{
	uint64_t argument[5] = { page, handler->page_size };	/* start, len, mode, output */
	unsigned long request;

	switch (policy) {
	case LAB_COPY:
	case LAB_COPY_WP:
		argument[1] = handler->source;
		argument[2] = handler->page_size;
		argument[3] = policy == LAB_COPY_WP ? MODE_WP : 0;
		request = LAB_IOCTL(0x03, 5);
		break;
	case LAB_ZEROPAGE:
		request = LAB_IOCTL(0x04, 4);
		break;
	case LAB_POISON:
		request = LAB_IOCTL(0x08, 4);
		break;
	case LAB_CONTINUE:
	case LAB_CONTINUE_WP:
		argument[2] = policy == LAB_CONTINUE_WP ? MODE_WP : 0;
		request = LAB_IOCTL(0x07, 4);
		break;
	default:	/* LAB_UNPROTECT */
		request = rwp ? LAB_IOCTL(0x09, 3) : LAB_IOCTL(0x06, 3);
		break;
	}
	for (int i = 0; i < TRIES; i++) {
		if (ioctl(handler->uffd, request, argument) == 0)
			return 0;
		if (errno != EAGAIN)
			break;
	}
	if (errno == EEXIST) {	/* another fault on this page was resolved first: wake this thread, too */
		uint64_t range[2] = { page, handler->page_size };

		return ioctl(handler->uffd, LAB_WAKE, range) ? -errno : 0;
	}
	return -errno;
}

static void forward(struct lab_handler *handler, const struct message *message)
{
	ssize_t written;

	do {
		written = write(handler->forward_fd, message, sizeof(*message));
	} while (written < 0 && errno == EINTR);
	if (written == sizeof(*message)) {	/* smaller than PIPE_BUF: written completely or not at all */
		handler->forwarded++;
		return;
	}
	handler->failed++;
	handler->last_error = errno;
}

/* Returns whether it has to be tried again. */
static int serve_fault(struct lab_handler *handler, const struct fault *fault)
{
	const struct message *message = &fault->message;
	const uint64_t page = message->address & ~(handler->page_size - 1);
	const int kind = message->flags & FAULT_RWP ? 3 : message->flags & FAULT_WP ? 2 : message->flags & FAULT_MINOR ? 1 : 0;
	const int policies[4] = { handler->missing, handler->minor, handler->wp, handler->rwp };
	int64_t took;
	int error;

	if (policies[kind] == LAB_FORWARD) {
		forward(handler, message);
		return 0;
	}
	error = resolve(handler, policies[kind], page, kind == 3);
	took = lab_now_ns() - fault->read_ns;
	if (error == -EAGAIN && took < LONGEST_NS)
		return 1;
	if (error) {
		handler->failed++;
		handler->last_error = -error;
		forward(handler, message);
		return 0;
	}
	handler->served[kind]++;
	handler->latency[took > 1 ? 64 - __builtin_clzll((unsigned long long)took - 1) : 0]++;
	return 0;
}

static void retry_pending(struct lab_handler *handler)
{
	struct lab_handler_private *private = handler->private_state;
	int remaining = 0;

	for (int i = 0; i < private->count; i++)
		if (serve_fault(handler, &private->pending[i]))
			private->pending[remaining++] = private->pending[i];
	private->count = remaining;
}

/* Forwards the events, and adds the faults to those that are pending.  Returns 0, or an errno. */
static int read_messages(struct lab_handler *handler)
{
	struct lab_handler_private *private = handler->private_state;
	const int room = MAX_PENDING - private->count;
	struct message messages[AT_ONCE];
	ssize_t size;
	int64_t now;

	if (!room)
		return 0;
	size = read(handler->uffd, messages, (size_t)(room < AT_ONCE ? room : AT_ONCE) * sizeof(*messages));
	if (size < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : errno;
	now = lab_now_ns();
	for (ssize_t i = 0; i * (ssize_t)sizeof(*messages) < size; i++) {
		if (messages[i].event == EVENT_PAGEFAULT)
			private->pending[private->count++] = (struct fault){ messages[i], now };
		else
			forward(handler, &messages[i]);
	}
	return 0;
}

static void *serve_all(void *argument)
{
	struct lab_handler *handler = argument;
	struct lab_handler_private *private = handler->private_state;
	struct pollfd polled[2] = { { .events = POLLIN }, { .fd = private->stop_fd, .events = POLLIN } };
	int error;

	for (;;) {
		polled[0].fd = private->count < MAX_PENDING ? handler->uffd : -1;
		if (poll(polled, 2, private->count ? PAUSE_MS : -1) < 0 && errno != EINTR)
			break;
		if (polled[1].revents || polled[0].revents & POLLNVAL)
			break;
		error = read_messages(handler);
		if (error) {
			handler->last_error = error;
			break;
		}
		retry_pending(handler);
	}
	for (int i = 0; i < private->count; i++)	/* the next reader of messages may resolve them */
		forward(handler, &private->pending[i].message);
	__atomic_store_n(&handler->ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

int lab_handler_start(struct lab_handler *handler)
{
	int error;

	handler->private_state = calloc(1, sizeof(*handler->private_state));
	if (!handler->private_state)
		return -ENOMEM;
	handler->private_state->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (handler->private_state->stop_fd < 0) {
		error = -errno;
		free(handler->private_state);
		return error;
	}
	error = lab_start_thread(&handler->private_state->thread, serve_all, handler);
	if (error) {
		close(handler->private_state->stop_fd);
		free(handler->private_state);
	}
	return error;
}

int lab_handler_stop(struct lab_handler *handler)
{
	const uint64_t increment = 1;
	int error = 0;

	if (write(handler->private_state->stop_fd, &increment, sizeof(increment)) < 0)
		error = -errno;
	else
		pthread_join(handler->private_state->thread, NULL);
	close(handler->private_state->stop_fd);
	free(handler->private_state);
	handler->private_state = NULL;
	return error;
}
