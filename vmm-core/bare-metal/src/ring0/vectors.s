# Entry of exceptions and interrupts.
#
# Every gate has an IST stack, because the prebuilt core library uses the red zone below RSP. Exceptions go to Rust, which
# may use XMM registers: FXSAVE and FXRSTOR keep the interrupted code's. Interrupts and NMIs are served here, with general
# registers only, so their XMM registers are never touched. GS points to the processor's own page (area.rs).

.text
.irp vector, 0,1,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,31
.balign 16
bare_metal_exception_\vector:
    push 0
    push \vector
    jmp bare_metal_exception_common
.endr
.irp vector, 8,10,11,12,13,14,17,21,29,30
.balign 16
bare_metal_exception_\vector:
    push \vector
    jmp bare_metal_exception_common
.endr

# The hardware aligns the stack and pushes SS, RSP, RFLAGS, CS, RIP; with error code, vector and fifteen registers the
# frame is 22 words, a multiple of 16 bytes, so FXSAVE and the call find RSP aligned.
.balign 16
bare_metal_exception_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    sub rsp, 512
    fxsave64 [rsp]
    call {exception}
    fxrstor64 [rsp]
    add rsp, 512
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

# A non-maskable interrupt is counted.
.balign 16
bare_metal_exception_2:
    lock inc qword ptr gs:[{NMIS}]
    iretq

# An interrupt leaves a bit in the processor's events, and is acknowledged in the x2APIC.
.macro bare_metal_interrupt name, event
.balign 16
\name:
    push rax
    push rcx
    push rdx
    lock or dword ptr gs:[{EVENTS}], \event
    mov ecx, {X2APIC_EOI}
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
.endm

.globl bare_metal_interrupt_ipi
.globl bare_metal_interrupt_timer
.globl bare_metal_interrupt_notification
.globl bare_metal_interrupt_other
.globl bare_metal_interrupt_spurious
bare_metal_interrupt bare_metal_interrupt_ipi, {IPI}
bare_metal_interrupt bare_metal_interrupt_timer, {TIMER}
bare_metal_interrupt bare_metal_interrupt_notification, {NOTIFICATION}
bare_metal_interrupt bare_metal_interrupt_other, 0

# A spurious interrupt is not in service: it is not acknowledged.
.balign 16
bare_metal_interrupt_spurious:
    iretq

# RDMSR that may fault: EDI is the register, RSI where the value goes; EAX is 0, or 1 after #GP.
.balign 16
.globl bare_metal_rdmsr
.globl bare_metal_rdmsr_instruction
.globl bare_metal_rdmsr_fault
bare_metal_rdmsr:
    mov ecx, edi
bare_metal_rdmsr_instruction:
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov [rsi], rax
    xor eax, eax
    ret
bare_metal_rdmsr_fault:
    mov eax, 1
    ret

# Opens the processor to what is pending, and closes it again. HLT follows STI without a gap: an interrupt that was pending
# before wakes it at once.
.balign 16
.globl bare_metal_take_interrupts
bare_metal_take_interrupts:
    sti
    nop
    cli
    ret
.balign 16
.globl bare_metal_halt
bare_metal_halt:
    sti
    hlt
    cli
    ret

# IRET to its own caller: ends the blocking of NMIs that an exit for one leaves.
.balign 16
.globl bare_metal_unblock_nmis
bare_metal_unblock_nmis:
    mov rax, rsp
    mov ecx, ss
    push rcx
    push rax
    pushfq
    mov ecx, cs
    push rcx
    lea rcx, [rip + 2f]
    push rcx
    iretq
2:
    ret

.section .data.rel.ro.bare_metal_exceptions, "aw", @progbits
.balign 8
.globl bare_metal_exceptions
bare_metal_exceptions:
.irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .quad bare_metal_exception_\vector
.endr

.text
