/*
 * What an unprivileged process can do to its processor, one child process for each case: it gets a result or a signal,
 * and the TD lives on. Prints "check <name> ok" or "check <name> FAILED: ..."; the status is the number of failures.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <fenv.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
/* A case that cannot be tried on this kernel or processor. */
#define SKIPPED 77

static int x87(void)
{
	volatile long double x = 1.5L, y;
	char text[64];

	y = x * x + 0.1L;
	snprintf(text, sizeof text, "%.15Lf", y);
	return strcmp(text, "2.350000000000000") != 0;
}

static int x87_rounding(void)
{
	volatile double third = 3.0, up, down;

	fesetround(FE_UPWARD);
	up = 1.0 / third;
	fesetround(FE_DOWNWARD);
	down = 1.0 / third;
	return !(up > down);
}

static int mmx(void)
{
	uint64_t a = 0x0102030405060708, b = 0x1010101010101010, sum;

	__asm__ volatile("movq %1,%%mm0; paddb %2,%%mm0; movq %%mm0,%0; emms" : "=m"(sum) : "m"(a), "m"(b));
	return sum != 0x1112131415161718;
}

static int sse41(void)
{
	double x = 2.5, r;

	__asm__ volatile("roundsd $9,%1,%0" : "=x"(r) : "x"(x));
	return r != 2.0;
}

static int flush_to_zero(void)
{
	unsigned m;
	volatile double tiny = 2.3e-308, r;

	__asm__ volatile("stmxcsr %0" : "=m"(m));
	m |= 0x8040;
	__asm__ volatile("ldmxcsr %0" ::"m"(m));
	r = tiny / 2;
	return r != 0;
}

static int split_lock(void)
{
	static char p[2 * PAGE] __attribute__((aligned(PAGE)));
	int v;

	__asm__ volatile("lock addl $1,%0" : "+m"(*(int *)(p + PAGE - 2)));
	memcpy(&v, p + PAGE - 2, sizeof v);
	return v != 1;
}

static int direct_store(void)
{
	static int v;

	__asm__ volatile("movdiri %1,%0" : "=m"(v) : "r"(42));
	return v != 42;
}

static int alignment_check(void)
{
	static char p[64] __attribute__((aligned(64)));

	__asm__ volatile("pushfq; orq $0x40000,(%%rsp); popfq; movl 1(%0),%%eax" ::"r"(p) : "rax", "cc", "memory");
	return 1;
}

static volatile int traps;

static void on_trap(int s)
{
	(void)s;
	traps++;
}

static int step_over_syscall(void)
{
	long r;

	signal(SIGTRAP, on_trap);
	__asm__ volatile("pushfq; orq $0x100,(%%rsp); popfq; mov $39,%%eax; syscall; pushfq; andq $~0x100,(%%rsp); popfq"
			 : "=a"(r)::"rcx", "r11", "memory");
	return r != getpid() || traps < 3;
}

static int step_over_string(void)
{
	static char from[8] = "abcdefg", to[8];
	void *s = from, *d = to;
	long n = 8;

	signal(SIGTRAP, on_trap);
	__asm__ volatile("pushfq; orq $0x100,(%%rsp); popfq; rep movsb; pushfq; andq $~0x100,(%%rsp); popfq"
			 : "+S"(s), "+D"(d), "+c"(n)::"memory");
	return memcmp(from, to, 8) != 0 || traps < 8;
}

static void clear_vectors(int s)
{
	(void)s;
	__asm__ volatile("vzeroall");
}

/* A signal's handler has vector registers of its own, the upper halves included. */
static int avx_over_a_signal(void)
{
	uint64_t before[4] = { 1, 2, 3, 4 }, after[4] = { 0 };

	if (!__builtin_cpu_supports("avx2"))
		return SKIPPED;
	signal(SIGUSR1, clear_vectors);
	__asm__ volatile("vmovdqu %2,%%ymm5\n\tsyscall\n\tvmovdqu %%ymm5,%0\n\tvzeroupper"
			 : "=m"(after)
			 : "a"(SYS_kill), "m"(before), "D"(getpid()), "S"(SIGUSR1)
			 : "rcx", "r11", "xmm5", "memory");
	return memcmp(before, after, sizeof before) != 0;
}

static int avx512(void)
{
	__asm__ volatile(".byte 0x62,0xf1,0x7d,0x48,0xfe,0xc0"); /* vpaddd zmm0,zmm0,zmm0 */
	return 1;
}

static int vmmcall(void)
{
	__asm__ volatile(".byte 0x0f,0x01,0xd9");
	return 1;
}

static int xbegin(void)
{
	__asm__ volatile(".byte 0xc7,0xf8,0,0,0,0");
	return 1;
}

static int vmcall(void)
{
	__asm__ volatile(".byte 0x0f,0x01,0xc1");
	return 1;
}

static int tdcall(void)
{
	__asm__ volatile("xor %%eax,%%eax; .byte 0x66,0x0f,0x01,0xcc" ::: "rax");
	return 1;
}

static int sysenter(void)
{
	__asm__ volatile("sysenter");
	return 1;
}

static int segment(int entry, void *base, unsigned limit, int code, int big)
{
	struct user_desc d = {
		.entry_number = entry, .base_addr = (uintptr_t)base, .limit = limit, .seg_32bit = big,
		.contents = code ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA, .useable = 1,
	};

	return syscall(SYS_modify_ldt, 1, &d, sizeof d);
}

static void *low_page(void)
{
	return mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
}

struct far_pointer { uint32_t offset; uint16_t selector; } __attribute__((packed));
struct far_pointer far_target;
unsigned long outer_stack, inner_stack;

/* Calls code of an LDT segment, on a stack that it can reach, with EBX; gives what it leaves in EAX. */
static unsigned call_segment(int entry, void *stack, unsigned long ebx)
{
	unsigned result;

	far_target.offset = 0;
	far_target.selector = entry << 3 | 7;
	inner_stack = (uintptr_t)stack + PAGE - 64;
	__asm__ volatile("mov %%rsp,outer_stack(%%rip); mov inner_stack(%%rip),%%rsp; lcall *far_target(%%rip);"
			 "mov outer_stack(%%rip),%%rsp"
			 : "=a"(result), "+b"(ebx)::"rcx", "rdx", "rsi", "rdi", "memory", "cc");
	return result;
}

static int code_of_16_bits(void)
{
	/* xor eax,eax; mov ax,0x0109; mov bl,9; add al,bl; aaa; push ax; pop cx; 66 retf */
	static const unsigned char code[] = { 0x66, 0x31, 0xc0, 0xb8, 0x09, 0x01, 0xb3, 0x09, 0x00, 0xd8, 0x37, 0x50, 0x59,
					      0x66, 0xcb };
	void *page = low_page();

	if (page == MAP_FAILED || segment(0, page, PAGE - 1, 1, 0) != 0)
		return SKIPPED;
	memcpy(page, code, sizeof code);
	return call_segment(0, page, 0) != 0x0208;
}

static int code_of_32_bits(void)
{
	/* mov eax,0x27; daa; cwde; pushad; popad; retf */
	static const unsigned char code[] = { 0xb8, 0x1b, 0, 0, 0, 0x27, 0x60, 0x61, 0xcb };
	void *page = low_page();

	if (page == MAP_FAILED || segment(0, page, PAGE - 1, 1, 1) != 0)
		return SKIPPED;
	memcpy(page, code, sizeof code);
	return call_segment(0, page, 0) != 0x21;
}

static int bound_fault(void)
{
	/* xor eax,eax; bound eax,[ebx]; retf */
	static const unsigned char code[] = { 0x31, 0xc0, 0x62, 0x03, 0xcb };
	unsigned char *page = low_page();

	if (page == MAP_FAILED || segment(0, page, PAGE - 1, 1, 1) != 0)
		return SKIPPED;
	memcpy(page, code, sizeof code);
	((int *)(page + 64))[0] = 1;
	((int *)(page + 64))[1] = 2;
	call_segment(0, page, (uintptr_t)(page + 64));
	return 1;
}

static int stack_of_16_bits(void)
{
	unsigned short selector = 1 << 3 | 7, old;
	void *page = low_page();
	unsigned long kept, value;

	if (page == MAP_FAILED || segment(1, page, 0xffff, 0, 0) != 0)
		return SKIPPED;
	/* In 64-bit code the stack segment's size does not matter; loading and leaving it must work. */
	__asm__ volatile("mov %%ss,%0; mov %%rsp,%1; mov %3,%%ss; mov %%rsp,%2; mov %0,%%ss"
			 : "=&r"(old), "=&r"(kept), "=&r"(value) : "r"(selector) : "memory");
	return kept != value;
}

static int watchpoint(void)
{
	static volatile int watched;
	int status;
	pid_t child = fork();

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		watched = 1;
		_exit(3);
	}
	waitpid(child, &status, 0);
	long set = ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), &watched);
	if (set == 0) /* L0, four bytes, written */
		set = ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 0xd0001);
	if (set != 0) {
		kill(child, SIGKILL);
		return SKIPPED;
	}
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		return 1;
	long dr6 = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[6]), 0);
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	return (dr6 & 1) == 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 3;
}

static int key_code;

static void on_fault(int s, siginfo_t *info, void *context)
{
	(void)s;
	(void)context;
	key_code = info->si_code;
	_exit(info->si_code == SEGV_PKUERR ? 0 : 1);
}

static int protection_key(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	int key = pkey_alloc(0, PKEY_DISABLE_WRITE);
	volatile char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (key < 0)
		return SKIPPED;
	page[0] = 1;
	sigaction(SIGSEGV, &action, NULL);
	if (pkey_mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE, key) != 0 || page[0] != 1)
		return 1;
	pkey_set(key, 0);
	page[0] = 2;
	pkey_set(key, PKEY_DISABLE_WRITE);
	page[0] = 3;
	return 1;
}

static const struct {
	const char *name;
	int (*run)(void);
	int signal; /* what ends the child; 0: it ends by itself */
} cases[] = {
	{ "x87", x87, 0 },
	{ "x87 and SSE rounding", x87_rounding, 0 },
	{ "MMX", mmx, 0 },
	{ "SSE4.1", sse41, 0 },
	{ "flush to zero", flush_to_zero, 0 },
	{ "a lock across two pages", split_lock, 0 },
	{ "MOVDIRI", direct_store, 0 },
	{ "alignment check", alignment_check, SIGBUS },
	{ "a step over SYSCALL", step_over_syscall, 0 },
	{ "a step over REP MOVSB", step_over_string, 0 },
	{ "AVX over a signal", avx_over_a_signal, 0 },
	{ "AVX-512, which is not offered", avx512, SIGILL },
	{ "VMMCALL", vmmcall, SIGILL },
	{ "XBEGIN, which is not offered", xbegin, SIGILL },
	{ "VMCALL", vmcall, -1 },
	{ "TDCALL", tdcall, SIGSEGV },
	{ "SYSENTER", sysenter, -1 },
	{ "16-bit code", code_of_16_bits, 0 },
	{ "32-bit code", code_of_32_bits, 0 },
	{ "BOUND", bound_fault, SIGSEGV },
	{ "a 16-bit stack segment", stack_of_16_bits, 0 },
	{ "a watchpoint", watchpoint, 0 },
	{ "a protection key", protection_key, 0 },
};

int main(void)
{
	int failures = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
		int status = 0;
		pid_t child = fork();

		if (child == 0)
			_exit(cases[n].run());
		waitpid(child, &status, 0);
		int by = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
		int ok = cases[n].signal == -1 ? by != 0 : by == cases[n].signal && (by || WEXITSTATUS(status) == 0);
		if (!by && WEXITSTATUS(status) == SKIPPED) {
			printf("check %s skipped\n", cases[n].name);
		} else if (ok) {
			printf("check %s ok\n", cases[n].name);
		} else {
			printf("check %s FAILED: status %#x\n", cases[n].name, status);
			failures++;
		}
	}
	return failures;
}
