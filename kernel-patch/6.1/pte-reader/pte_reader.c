// SPDX-License-Identifier: GPL-2.0
/*
 * Show the page table entries of a process, as they are.
 *
 * /proc/PID/pagemap tells what the kernel thinks of a page; it has no bit for
 * "writable", for one. This device returns the entries themselves, together
 * with the level they were found at.
 *
 * Nothing may free a page table while it is read:
 *
 * - munmap() and the like take the mapping out of the tree before they free its
 *   page tables. Holding mmap_lock for reading, and looking only at addresses
 *   inside a mapping, keeps them away. So does the reference on the mm for
 *   exit_mmap().
 *
 * - khugepaged, the reclaim of empty page tables and the unsharing of hugetlb
 *   PMD tables do not necessarily take mmap_lock for writing. But they cater for
 *   lockless walkers, as gup_fast() is one: the table is freed by RCU, or after
 *   an IPI to every CPU. Walking with interrupts disabled holds off both. This
 *   is what MMU_GATHER_RCU_TABLE_FREE is required for; without it there would
 *   only be the IPI of a TLB flush, which this CPU need not be sent for another
 *   process's mm.
 *
 * An entry may change at any time, so each is read once and the copy used. As
 * nothing but the entry is wanted, the PTE lock would not add anything.
 *
 * Only what is exported to modules is used.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/pgtable.h>
#include <linux/pid.h>
#include <linux/pte_reader.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/uaccess.h>

#if !IS_ENABLED(CONFIG_64BIT) || !IS_ENABLED(CONFIG_MMU_GATHER_RCU_TABLE_FREE)
#error "Needs CONFIG_64BIT and CONFIG_MMU_GATHER_RCU_TABLE_FREE (on x86: CONFIG_PARAVIRT)"
#endif

/* As many as fit into one page; mmap_lock is held for so long */
#define PTE_READER_CHUNK	(PAGE_SIZE / sizeof(struct pte_reader_entry))

/* Called with mmap_lock held and interrupts disabled. */
static void pte_reader_walk(struct mm_struct *mm, unsigned long addr,
			    struct pte_reader_entry *result)
{
	pgd_t *pgdp, pgd;
	p4d_t *p4dp, p4d;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;

	pgdp = pgd_offset(mm, addr);
	pgd = READ_ONCE(*pgdp);
	result->level = 5;
	result->entry = pgd_val(pgd);
	if (pgd_none(pgd) || pgd_bad(pgd))
		return;

	p4dp = p4d_offset_lockless(pgdp, pgd, addr);
	p4d = READ_ONCE(*p4dp);
	result->level = 4;
	result->entry = p4d_val(p4d);
	if (!p4d_present(p4d) || p4d_bad(p4d))
		return;

	pudp = pud_offset_lockless(p4dp, p4d, addr);
	pud = READ_ONCE(*pudp);
	result->level = 3;
	result->entry = pud_val(pud);
	if (!pud_present(pud) || pud_leaf(pud) || pud_bad(pud))
		return;

	pmdp = pmd_offset_lockless(pudp, pud, addr);
	pmd = READ_ONCE(*pmdp);
	result->level = 2;
	result->entry = pmd_val(pmd);
	if (!pmd_present(pmd) || pmd_leaf(pmd) || pmd_bad(pmd))
		return;

	result->level = 1;
	result->entry = pte_val(READ_ONCE(*pte_offset_kernel(&pmd, addr)));
}

static int pte_reader_chunk(struct task_struct *task, struct mm_struct *mm,
			    unsigned long addr, unsigned long stride,
			    struct pte_reader_entry *entries, size_t count)
{
	struct vm_area_struct *vma = NULL;
	unsigned long flags;
	size_t i;

	memset(entries, 0, count * sizeof(*entries));
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for (i = 0; i < count; i++, addr += stride) {
		if (!vma || addr >= vma->vm_end)
			vma = find_vma(mm, addr);
		if (!vma)
			break;
		if (addr < vma->vm_start)
			continue;
		local_irq_save(flags);
		pte_reader_walk(mm, addr, &entries[i]);
		local_irq_restore(flags);
	}
	mmap_read_unlock(mm);

	/* What was read is of no use if the process had left it by then. */
	return READ_ONCE(task->mm) == mm ? 0 : -ESRCH;
}

static int pte_reader_read(const struct pte_reader_request *request,
			   struct task_struct *task, struct mm_struct *mm)
{
	struct pte_reader_entry __user *to = u64_to_user_ptr(request->entries);
	u64 stride = request->stride ?: PAGE_SIZE;
	u64 left = request->count;
	u64 addr = request->start;
	struct pte_reader_entry *entries;
	u64 end;
	int ret = 0;

	if (check_mul_overflow(stride, left - 1, &end) ||
	    check_add_overflow(end, addr, &end) || end >= mm->task_size)
		return -EINVAL;

	entries = (void *)__get_free_page(GFP_KERNEL);
	if (!entries)
		return -ENOMEM;
	while (left && !ret) {
		size_t count = min_t(u64, left, PTE_READER_CHUNK);

		ret = pte_reader_chunk(task, mm, addr, stride, entries, count);
		if (!ret && copy_to_user(to, entries, count * sizeof(*to)))
			ret = -EFAULT;
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		to += count;
		addr += count * stride;
		left -= count;
		cond_resched();
	}
	free_page((unsigned long)entries);

	return ret;
}

static long pte_reader_ioctl(struct file *file, unsigned int cmd,
			     unsigned long arg)
{
	struct pte_reader_request request;
	struct task_struct *task;
	struct mm_struct *mm;
	struct pid *pid;
	int ret = -ESRCH;

	if (cmd != PTE_READER_READ)
		return -ENOTTY;
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&request, (void __user *)arg, sizeof(request)))
		return -EFAULT;
	if (request.flags || !request.count ||
	    !PAGE_ALIGNED(request.start) || !PAGE_ALIGNED(request.stride))
		return -EINVAL;
	if (request.count > PTE_READER_MAX_COUNT)
		return -E2BIG;

	pid = find_get_pid(request.pid);
	task = get_pid_task(pid, PIDTYPE_PID);
	put_pid(pid);
	if (!task)
		return -ESRCH;
	mm = get_task_mm(task);
	if (mm) {
		ret = pte_reader_read(&request, task, mm);
		mmput(mm);
	}
	put_task_struct(task);

	return ret;
}

static const struct file_operations pte_reader_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= pte_reader_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice pte_reader_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "pte_reader",
	.fops	= &pte_reader_fops,
	.mode	= 0600,
};
module_misc_device(pte_reader_device);

MODULE_DESCRIPTION("Page table entry reader");
MODULE_LICENSE("GPL");
