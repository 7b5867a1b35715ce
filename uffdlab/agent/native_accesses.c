// SPDX-License-Identifier: GPL-2.0-only
/*
 * Accesses that a signal can interrupt at any instruction.  It is always known
 * whether they were made.
 *
 * Each is a sequence of instructions from NAME_begin to NAME_end.  The last
 * one makes the access, except in a copy and in arm64's modify, which are
 * loops.  If the next instruction of an interrupted thread is between the two,
 * the access has not been made, and the thread continues at NAME_not_made.  If
 * it is NAME_end, the access has been made.  A variable that C sets before or
 * after the access would not do: a signal may come between the two.
 *
 * A system call that the kernel is about to restart is interrupted at its own
 * instruction, and has had no effect (signal(7)).  A system call that will not
 * be restarted has returned EINTR: the thread is past its instruction.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <ucontext.h>

#include "native_accesses.h"

#define BEGIN(name)	".globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name ":\n"
#define LABEL(name, at)	".globl " #name "_" #at "\n.hidden " #name "_" #at "\n" #name "_" #at ":\n"
#define END(name)	".size " #name ", . - " #name "\n"

#if defined(__x86_64__)

/* Arguments in rdi, rsi, rdx, rcx.  Both returns of each function. */
#define RETURNS(name)	"xorl %eax, %eax\n ret\n" LABEL(name, not_made) "movl $1, %eax\n ret\n"
#define UNLESS_WITHDRAWN(name)	"cmpl $0, (%rdi)\n jne " #name "_not_made\n"

asm(".pushsection .text\n"
    BEGIN(lab_access_read) LABEL(lab_access_read, begin) UNLESS_WITHDRAWN(lab_access_read)
    "movq (%rsi), %rax\n"
    LABEL(lab_access_read, end)
    "movq %rax, (%rdx)\n" RETURNS(lab_access_read) END(lab_access_read)

    BEGIN(lab_access_write) LABEL(lab_access_write, begin) UNLESS_WITHDRAWN(lab_access_write)
    "movq %rdx, (%rsi)\n"
    LABEL(lab_access_write, end)
    RETURNS(lab_access_write) END(lab_access_write)

    BEGIN(lab_access_modify) LABEL(lab_access_modify, begin) UNLESS_WITHDRAWN(lab_access_modify)
    "lock xaddq %rdx, (%rsi)\n"
    LABEL(lab_access_modify, end)
    "movq %rdx, (%rcx)\n" RETURNS(lab_access_modify) END(lab_access_modify)

    BEGIN(lab_access_copy) LABEL(lab_access_copy, begin) UNLESS_WITHDRAWN(lab_access_copy)
    "movq %rdx, %rdi\n"
    "rep movsb\n"
    LABEL(lab_access_copy, end)
    RETURNS(lab_access_copy) END(lab_access_copy)

    BEGIN(lab_access_syscall)
    "pushq %rcx\n"
    "movq %rdi, %r11\n"	/* the kernel overwrites it, and rcx */
    "movq %rsi, %rax\n"
    "movq %rdx, %rcx\n"
    "movq (%rcx), %rdi\n movq 8(%rcx), %rsi\n movq 16(%rcx), %rdx\n"
    "movq 24(%rcx), %r10\n movq 32(%rcx), %r8\n movq 40(%rcx), %r9\n"
    LABEL(lab_access_syscall, begin)
    "cmpl $0, (%r11)\n jne lab_access_syscall_not_made\n"
    "syscall\n"
    LABEL(lab_access_syscall, end)
    "popq %rcx\n movq %rax, (%rcx)\n xorl %eax, %eax\n ret\n"
    LABEL(lab_access_syscall, not_made)
    "popq %rcx\n movl $1, %eax\n ret\n"
    END(lab_access_syscall)
    ".popsection\n");

#define NEXT_INSTRUCTION(context)	((context)->uc_mcontext.gregs[REG_RIP])

#elif defined(__aarch64__)

/* Arguments in x0 to x3. */
#define RETURNS(name)	"mov w0, #0\n ret\n" LABEL(name, not_made) "mov w0, #1\n ret\n"
#define UNLESS_WITHDRAWN(name)	"ldr w9, [x0]\n cbnz w9, " #name "_not_made\n"

asm(".pushsection .text\n .p2align 2\n"
    BEGIN(lab_access_read) LABEL(lab_access_read, begin) UNLESS_WITHDRAWN(lab_access_read)
    "ldr x10, [x1]\n"
    LABEL(lab_access_read, end)
    "str x10, [x2]\n" RETURNS(lab_access_read) END(lab_access_read)

    BEGIN(lab_access_write) LABEL(lab_access_write, begin) UNLESS_WITHDRAWN(lab_access_write)
    "str x2, [x1]\n"
    LABEL(lab_access_write, end)
    RETURNS(lab_access_write) END(lab_access_write)

    BEGIN(lab_access_modify) LABEL(lab_access_modify, begin) UNLESS_WITHDRAWN(lab_access_modify)
    "ldaxr x10, [x1]\n add x11, x10, x2\n stlxr w12, x11, [x1]\n"
    LABEL(lab_access_modify, end)
    "cbnz w12, lab_access_modify_begin\n"	/* the store failed: try again */
    "dmb ish\n str x10, [x3]\n" RETURNS(lab_access_modify) END(lab_access_modify)

    BEGIN(lab_access_copy) LABEL(lab_access_copy, begin) UNLESS_WITHDRAWN(lab_access_copy)
    "1: cbz x3, lab_access_copy_end\n"
    "ldrb w10, [x1], #1\n strb w10, [x2], #1\n sub x3, x3, #1\n b 1b\n"
    LABEL(lab_access_copy, end)
    RETURNS(lab_access_copy) END(lab_access_copy)

    BEGIN(lab_access_syscall)
    "str x3, [sp, #-16]!\n"
    "mov x9, x0\n mov x8, x1\n mov x10, x2\n"
    "ldp x0, x1, [x10]\n ldp x2, x3, [x10, #16]\n ldp x4, x5, [x10, #32]\n"
    LABEL(lab_access_syscall, begin)
    "ldr w9, [x9]\n cbnz w9, lab_access_syscall_not_made\n"
    "svc #0\n"
    LABEL(lab_access_syscall, end)
    "ldr x10, [sp], #16\n str x0, [x10]\n mov w0, #0\n ret\n"
    LABEL(lab_access_syscall, not_made)
    "add sp, sp, #16\n mov w0, #1\n ret\n"
    END(lab_access_syscall)
    ".popsection\n");

#define NEXT_INSTRUCTION(context)	((context)->uc_mcontext.pc)

#else
#error "accesses are written for x86-64 and arm64"
#endif

#define LABELS(name)	\
	extern const char name##_begin[] __attribute__((visibility("hidden")));	\
	extern const char name##_end[] __attribute__((visibility("hidden")));	\
	extern const char name##_not_made[] __attribute__((visibility("hidden")))

LABELS(lab_access_read);
LABELS(lab_access_write);
LABELS(lab_access_modify);
LABELS(lab_access_copy);
LABELS(lab_access_syscall);

int lab_leave_access(void *context)
{
#define SEQUENCE(name)	{ name##_begin, name##_end, name##_not_made }
	static const struct {
		const char *begin, *end, *not_made;
	} sequences[] = {
		SEQUENCE(lab_access_read), SEQUENCE(lab_access_write), SEQUENCE(lab_access_modify),
		SEQUENCE(lab_access_copy), SEQUENCE(lab_access_syscall),
	};
	ucontext_t *interrupted = context;
	const uintptr_t at = (uintptr_t)NEXT_INSTRUCTION(interrupted);

	for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
		if (at < (uintptr_t)sequences[i].begin || at >= (uintptr_t)sequences[i].end)
			continue;
		NEXT_INSTRUCTION(interrupted) = (__typeof__(NEXT_INSTRUCTION(interrupted)))(uintptr_t)sequences[i].not_made;
		return 1;
	}
	return 0;
}
