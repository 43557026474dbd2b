# Where a vCPU waits for an operating system: the firmware's side of the multiprocessor wake-up mailbox (ACPI 6.5,
# section 5.2.12.19). Runs from a copy in the resident page, without a stack, so it must not depend on its place.
#
# RDI = mailbox, ESI = this vCPU's APIC id, RDX = counter of parked vCPUs. Long mode, identity map, interrupts off.

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
    cmp word ptr [rdi], 1               # wakeup; 0 is nothing, others are not known
    jne 1b
    mov rax, qword ptr [rdi + 8]
    mov word ptr [rdi], 0               # taken
    jmp rax
.globl park_end
park_end:

.text
