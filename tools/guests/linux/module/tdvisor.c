// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What the test guest needs and Linux 6.1 does not offer: the TD's own report, its event log, and the exit port.
 *
 * /proc/tdvisor/report	write up to 64 bytes of report data, read 1024 bytes of TDREPORT_STRUCT (TDG.MR.REPORT)
 * /proc/tdvisor/ccel	read the event log that the ACPI table "CCEL" points to
 * /proc/tdvisor/exit	write a decimal number: ends the TD with that exit status
 *
 * The TDCALL is issued here, because the kernel's own wrapper is not exported to modules.
 */
#include <linux/acpi.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <asm/cpufeature.h>

#define EXIT_PORT		0x501
#define TDG_MR_REPORT		4
#define REPORT_BYTES		1024
#define REPORT_DATA_BYTES	64
#define CCEL_MAX		(1024 * 1024)

/* One page: the report at its beginning, the report data behind it; both keep the leaf's alignment. */
static u8 *page;
static DEFINE_MUTEX(page_lock);

static void *ccel_copy;
static size_t ccel_bytes;

static u64 tdg_mr_report(phys_addr_t report, phys_addr_t data)
{
	register u64 rax asm("rax") = TDG_MR_REPORT;
	register u64 rcx asm("rcx") = report;
	register u64 rdx asm("rdx") = data;
	register u64 r8 asm("r8") = 0;

	asm volatile(".byte 0x66, 0x0f, 0x01, 0xcc"
		     : "+r"(rax), "+r"(rcx), "+r"(rdx), "+r"(r8)
		     :
		     : "r9", "r10", "r11", "cc", "memory");
	return rax;
}

static ssize_t report_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	ssize_t result = count;
	u64 status;

	if (!boot_cpu_has(X86_FEATURE_TDX_GUEST))
		return -ENODEV;
	if (count > REPORT_DATA_BYTES)
		return -EINVAL;
	mutex_lock(&page_lock);
	memset(page, 0, PAGE_SIZE);
	if (copy_from_user(page + REPORT_BYTES, from, count)) {
		result = -EFAULT;
	} else {
		status = tdg_mr_report(virt_to_phys(page), virt_to_phys(page + REPORT_BYTES));
		if (status) {
			pr_err("tdvisor: TDG.MR.REPORT failed: %#llx\n", status);
			result = -EIO;
		}
	}
	mutex_unlock(&page_lock);
	return result;
}

static ssize_t report_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	ssize_t result;

	mutex_lock(&page_lock);
	result = simple_read_from_buffer(to, count, at, page, REPORT_BYTES);
	mutex_unlock(&page_lock);
	return result;
}

static ssize_t ccel_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	if (!ccel_copy)
		return -ENODATA;
	return simple_read_from_buffer(to, count, at, ccel_copy, ccel_bytes);
}

static ssize_t exit_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	u8 code;
	int error = kstrtou8_from_user(from, count, 10, &code);

	if (error)
		return error;
	outb(code, EXIT_PORT);
	return count;
}

static const struct proc_ops report_ops = {
	.proc_write = report_write,
	.proc_read = report_read,
	.proc_lseek = default_llseek,
};
static const struct proc_ops ccel_ops = {
	.proc_read = ccel_read,
	.proc_lseek = default_llseek,
};
static const struct proc_ops exit_ops = {
	.proc_write = exit_write,
	.proc_lseek = noop_llseek,
};

/*
 * The log without most of its unused rest (zeros or ones), which the console need not carry. Some of it stays, because
 * the last event's own data may look like it.
 */
static size_t used_bytes(const u8 *log, size_t length)
{
	const size_t slack = 16;
	const u8 fill = log[length - 1];
	size_t used = length;

	if (fill != 0 && fill != 0xff)
		return length;
	while (used && log[used - 1] == fill)
		used--;
	return min(length, used + slack);
}

/* Copies the log once: nothing writes it while the system runs, and the mapping need not stay. */
static void copy_event_log(void)
{
	struct acpi_table_header *table;
	u64 length, start;
	void *log;

	if (ACPI_FAILURE(acpi_get_table("CCEL", 0, &table)))
		return;
	if (table->length < sizeof(*table) + 20)
		goto out;
	/* Behind the header: type, subtype, two reserved bytes, then length and address of the log area. */
	memcpy(&length, (u8 *)table + sizeof(*table) + 4, sizeof(length));
	memcpy(&start, (u8 *)table + sizeof(*table) + 12, sizeof(start));
	if (!length || length > CCEL_MAX)
		goto out;
	/* The log is private memory, whatever the memory map calls it. */
	log = (__force void *)ioremap_encrypted(start, length);
	if (!log)
		goto out;
	ccel_copy = vmalloc(length);
	if (ccel_copy) {
		memcpy_fromio(ccel_copy, (__force void __iomem *)log, length);
		ccel_bytes = used_bytes(ccel_copy, length);
	}
	iounmap((__force void __iomem *)log);
out:
	acpi_put_table(table);
}

static int __init tdvisor_init(void)
{
	struct proc_dir_entry *directory;

	page = (u8 *)get_zeroed_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	directory = proc_mkdir("tdvisor", NULL);
	if (!directory) {
		free_page((unsigned long)page);
		return -ENOMEM;
	}
	if (boot_cpu_has(X86_FEATURE_TDX_GUEST))
		copy_event_log();
	proc_create("report", 0600, directory, &report_ops);
	proc_create("ccel", 0400, directory, &ccel_ops);
	proc_create("exit", 0200, directory, &exit_ops);
	return 0;
}
module_init(tdvisor_init);

MODULE_DESCRIPTION("TDREPORT, event log and exit port for tdvisor's test guest");
MODULE_LICENSE("Dual MIT/GPL");
