# Exception entry. Every gate has an IST stack, because the precompiled core library uses the red zone below RSP.
# The hardware aligns that stack and pushes SS, RSP, RFLAGS, CS, RIP; with error code, vector and fifteen registers
# the frame is 22 words, a multiple of 16 bytes, so FXSAVE and the call find RSP aligned.

.text
.irp vector, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,31
.balign 16
exception_\vector:
    push 0
    push \vector
    jmp exception_common
.endr
.irp vector, 8,10,11,12,13,14,17,21,29,30
.balign 16
exception_\vector:
    push \vector
    jmp exception_common
.endr

.balign 16
exception_common:
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
    call rt_exception
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

.section .rodata.exception_entries, "a", @progbits
.balign 8
.globl exception_entries
exception_entries:
.irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .quad exception_\vector
.endr

.text
