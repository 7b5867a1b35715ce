/* The functions of the native core.  Declarations without preprocessor directives: cffi parses this file itself. */

/* native.c: single calls, with their times.  All return 0 or a value, or -errno. */
int lab_ioctl(int fd, unsigned long request, void *argument, int64_t *started_ns, int64_t *ended_ns);
int lab_userfaultfd(int flags);
int lab_memfd(const char *name, unsigned int flags);
int lab_detached_tmpfs(const char *huge);
int lab_map(uint64_t hint, uint64_t length, int protection, int flags, int fd, uint64_t *address);
int lab_unmap(uint64_t address, uint64_t length);
int lab_madvise(uint64_t address, uint64_t length, int advice);
int lab_duplicate_mapping(uint64_t address, uint64_t length, uint64_t hint, uint64_t *duplicate);
int lab_swap_on(const char *disk);
int lab_stream_pair(int *pair);
int lab_pidfd_open(int pid);
int lab_pidfd_signal(int pidfd, int number);	/* to this process only, not to a group */
int lab_die_with_parent(void);
int lab_mount(const char *type, const char *target, unsigned long flags);
int lab_insert_module(int fd);
void lab_power_off(void);
void lab_ignore_interrupts(void);
int64_t lab_now_ns(void);

/* Memory that is never registered: the beacon and the sources of UFFDIO_COPY. */
void lab_poke(uint64_t address, const void *bytes, uint64_t length);

/*
 * Makes one ioctl for each page.  `argument` is for the first page; its first
 * field grows by `step` each time.  Returns 0, or -errno of the one that failed.
 */
struct lab_batch {
	uint64_t argument[5];
	uint64_t step;
	uint64_t count;
	uint64_t done;		/* out: the number that succeeded */
	int64_t started_ns;	/* out */
	int64_t ended_ns;	/* out */
};

int lab_batch_run(int fd, unsigned long request, struct lab_batch *batch);

/* native_touches.c: one access to memory that may fault, on its own thread or in a forked child. */
enum lab_touch_kind {
	LAB_TOUCH_READ, LAB_TOUCH_WRITE, LAB_TOUCH_MODIFY, LAB_TOUCH_FILL, LAB_TOUCH_SWEEP, LAB_TOUCH_COPY_OUT,
	LAB_TOUCH_SYSCALL
};
enum lab_touch_state { LAB_TOUCH_STARTED, LAB_TOUCH_DONE, LAB_TOUCH_SIGNAL, LAB_TOUCH_WITHDRAWN };

struct lab_touch {
	int kind;
	int each;		/* SWEEP: READ, WRITE or MODIFY */
	uint64_t address;
	uint64_t length;	/* FILL, SWEEP, COPY_OUT: bytes */
	uint64_t stride;	/* FILL, SWEEP: bytes between two accesses */
	uint64_t first;		/* SWEEP: number of the first access */
	uint64_t jump;		/* SWEEP: the step from one access to the next; 1: in order */
	uint64_t value;		/* WRITE, MODIFY: the value to write or add; READ, MODIFY: the value read; SWEEP: the sum */
	void *buffer;		/* COPY_OUT: the destination */
	long number;		/* SYSCALL: a result of lab_syscall_number() */
	uint64_t arguments[6];	/* SYSCALL */
	int done_fd;		/* an eventfd that is written when it has ended */
	/* written by the thread */
	int state;
	int withdrawn;
	int signal_number;
	int signal_code;
	uint64_t signal_address;
	int thread_id;
	uint64_t progress;	/* FILL, SWEEP: accesses made */
	int64_t returned;	/* SYSCALL: its value, or -errno */
	int64_t started_ns;
	int64_t ended_ns;
	struct lab_touch_private *private_state;	/* private */
};

int lab_touch_start(struct lab_touch *touch);
int lab_touch_state_of(struct lab_touch *touch);
int lab_touch_withdraw(struct lab_touch *touch);
void lab_touch_join(struct lab_touch *touch);
long lab_syscall_number(const char *name);

/*
 * Forks a child with a touch in memory that both share.  The child makes that touch for every byte that it reads from
 * go_fd.  Its descriptor 2 is value_fd.  If its start fails, it exits with an enum lab_child_exit, and the errno is in
 * `returned`.
 */
enum lab_child_exit { LAB_CHILD_NO_MORE = 0, LAB_CHILD_NO_FDS = 100, LAB_CHILD_CLOSE_FAILED = 101 };

struct lab_touch *lab_shared_touch(void);
void lab_free_shared_touch(struct lab_touch *touch);
int lab_fork(struct lab_touch *shared, int go_fd, int value_fd, int64_t *started_ns, int64_t *ended_ns);
void lab_touch_prepare(struct lab_touch *shared);
int lab_child_withdraw(int pidfd, struct lab_touch *shared);

/* native_handlers.c: a loop that resolves faults without the interpreter. */
enum lab_policy {
	LAB_FORWARD, LAB_COPY, LAB_COPY_WP, LAB_ZEROPAGE, LAB_POISON, LAB_CONTINUE, LAB_CONTINUE_WP, LAB_UNPROTECT
};

struct lab_handler {
	int uffd;
	int forward_fd;		/* a pipe for the messages that no policy serves */
	int missing, minor, wp, rwp;	/* policies */
	uint64_t page_size;
	uint64_t source;	/* COPY: the address of the source, one page */
	/* written by the loop */
	uint64_t served[4];	/* missing, minor, wp, rwp */
	uint64_t forwarded;
	uint64_t failed;
	int last_error;
	int ended;
	uint64_t latency[64];	/* number of faults resolved within 2^i ns of being read */
	struct lab_handler_private *private_state;	/* private */
};

int lab_handler_start(struct lab_handler *handler);
int lab_handler_stop(struct lab_handler *handler);

/* Keep one CPU in user mode in this process until stopped or until the time is over. */
int lab_spin_start(int64_t for_ns);
void lab_spin_stop(void);
