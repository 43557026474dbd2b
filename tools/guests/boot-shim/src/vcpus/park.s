# Where a vCPU waits for an operating system: the firmware's side of the multiprocessor wake-up mailbox (ACPI 6.5,
# section 5.2.12.19). Runs from a copy in the second half of the mailbox's page, which is the firmware's, without a stack, so
# it must not depend on its place. Long mode, interrupts off.
#
# park_begin: RDI = mailbox, ESI = this vCPU's APIC id, RDX = counter of parked vCPUs; the firmware's own identity map.
# park_reset: where a vCPU comes back that an operating system has no use for, in an identity map of that system, which need
# not stay.

.section .rodata.park, "a", @progbits
.code64
.balign 16
.globl park_begin
park_begin:
    lock inc dword ptr [rdx]
1:
    pause
    # The id first: the operating system writes it before the command, so an id of ours followed by the command is a
    # command for us, and one that was for another vCPU is not.
    cmp dword ptr [rdi + 4], esi
    jne 1b
    movzx eax, word ptr [rdi]
    cmp eax, 1                          # wakeup
    je 2f
    cmp eax, 2                          # test: are we here? 0 is nothing, others are not known
    jne 1b
    mov word ptr [rdi], 0
    jmp 1b
2:
    mov rax, qword ptr [rdi + 8]
    mov word ptr [rdi], 0               # taken
    jmp rax

.globl park_reset
park_reset:
    cli
    cld
    lea rdi, [rip + park_begin]
    and rdi, -4096
    # Four-level tables are of no use where the system has five levels; its own map holds this page, at least.
    mov rax, cr4
    bt rax, 12
    jc 3f
    mov rax, qword ptr [rip + park_cr3]
    mov cr3, rax
3:
    mov eax, 1                          # TDG.VP.INFO: R9 is this vCPU's index, and that its APIC id
    .byte 0x66, 0x0f, 0x01, 0xcc
    mov esi, r9d
    jmp 1b
.balign 8
# The firmware's page tables; written into the copy.
.globl park_cr3
park_cr3:
    .quad 0
.globl park_end
park_end:

.text
