# Where a processor begins that INIT and a start-up IPI started: 16-bit code, copied to a page below 1 MiB. CS is the page's
# number << 8, IP is 0. It knows nothing but its own page, so everything is relative to it; the numbers at its end are
# filled in by who copies it. (In this file's syntax, because the other one has no differences of labels as displacements.)

.pushsection .rodata.bare_metal_trampoline, "a", @progbits
.balign 16
.globl bare_metal_trampoline
.globl bare_metal_trampoline_end
.globl bare_metal_trampoline_values
bare_metal_trampoline:
.code16
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    # The linear address of the page: descriptors and far pointers get it added.
    movzwl %ax, %ebx
    shll $4, %ebx
    addl %ebx, bare_metal_trampoline_gdt_base - bare_metal_trampoline
    addl %ebx, bare_metal_trampoline_to_32 - bare_metal_trampoline
    addl %ebx, bare_metal_trampoline_to_64 - bare_metal_trampoline
    lgdtl bare_metal_trampoline_gdt_pointer - bare_metal_trampoline
    movl %cr0, %eax
    andl $0x9FFFFFFF, %eax              # caches on
    orl $1, %eax
    movl %eax, %cr0
    ljmpl *(bare_metal_trampoline_to_32 - bare_metal_trampoline)

.code32
bare_metal_trampoline_32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    # PAE and SSE; the tables; long mode with no-execute; paging.
    movl %cr4, %eax
    orl $0x620, %eax
    movl %eax, %cr4
    movl (bare_metal_trampoline_values - bare_metal_trampoline)(%ebx), %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl %cr0, %eax
    andl $0xFFFFFFF3, %eax
    orl $0x80010022, %eax
    movl %eax, %cr0
    ljmpl *(bare_metal_trampoline_to_64 - bare_metal_trampoline)(%ebx)

.code64
bare_metal_trampoline_64:
    movq (bare_metal_trampoline_values - bare_metal_trampoline + 8)(%rbx), %rax
    jmpq *%rax

.balign 8
bare_metal_trampoline_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 0x08 64-bit code
    .quad 0x00CF93000000FFFF            # 0x10 data
    .quad 0x00CF9B000000FFFF            # 0x18 32-bit code
bare_metal_trampoline_gdt_pointer:
    .word 31
bare_metal_trampoline_gdt_base:
    .long bare_metal_trampoline_gdt - bare_metal_trampoline
.balign 8
bare_metal_trampoline_to_32:
    .long bare_metal_trampoline_32 - bare_metal_trampoline
    .word 0x18
.balign 8
bare_metal_trampoline_to_64:
    .long bare_metal_trampoline_64 - bare_metal_trampoline
    .word 0x08
.balign 8
bare_metal_trampoline_values:
    .quad 0                             # the page tables
    .quad 0                             # where to go on
bare_metal_trampoline_end:
.popsection
