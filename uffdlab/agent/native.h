/* What native.c offers.  Plain declarations, no preprocessor: cffi reads this file as it is. */

/* Calls that do one thing and say how long it took.  All return 0 or -errno. */
int lab_ioctl(int fd, unsigned long request, void *argument, int64_t *started_ns, int64_t *ended_ns);
int lab_userfaultfd(int flags);
int lab_memfd(const char *name, unsigned int flags);
int lab_map(uint64_t hint, uint64_t length, int protection, int flags, int fd, uint64_t *address);
int lab_unmap(uint64_t address, uint64_t length);
int lab_madvise(uint64_t address, uint64_t length, int advice);
int lab_die_with_parent(void);
int64_t lab_now_ns(void);

/* Memory that is never registered: the beacon and the sources of UFFDIO_COPY. */
void lab_poke(uint64_t address, const void *bytes, uint64_t length);

/* A touch: one access to memory that may fault, on a thread of its own. */
enum lab_touch_kind { LAB_TOUCH_READ, LAB_TOUCH_WRITE, LAB_TOUCH_FILL, LAB_TOUCH_COPY_OUT };
enum lab_touch_state { LAB_TOUCH_STARTED, LAB_TOUCH_DONE, LAB_TOUCH_SIGNAL, LAB_TOUCH_WITHDRAWN };

struct lab_touch {
	int kind;
	uint64_t address;
	uint64_t length;	/* FILL, COPY_OUT: bytes */
	uint64_t stride;	/* FILL: bytes between two marks */
	uint64_t value;		/* WRITE: what to write; READ: what was read */
	void *buffer;		/* COPY_OUT: where to */
	int done_fd;		/* an eventfd that is told when it ended */
	/* written by the thread */
	int state;
	int signal_number;
	int signal_code;
	uint64_t signal_address;
	int thread_id;
	int64_t started_ns;
	int64_t ended_ns;
	struct lab_inside *inside;	/* private */
};

int lab_touch_start(struct lab_touch *touch);
int lab_touch_state_of(struct lab_touch *touch);
int lab_touch_withdraw(struct lab_touch *touch);
void lab_touch_join(struct lab_touch *touch);

/* Keep one CPU in user mode in this process until stopped or until the time is over. */
int lab_spin_start(int64_t for_ns);
void lab_spin_stop(void);
