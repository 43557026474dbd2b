# l2_enter(flags: rdi, state: rsi, out: rdx): TDG.VP.ENTER. When L1 goes on, nearly all registers are about the exit; RBP is
# the VM's.

    .global l2_enter
l2_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    mov rcx, rdi
    mov rdx, rsi
    mov eax, 25
    .byte 0x66, 0x0f, 0x01, 0xcc
    pop rbx
    mov [rbx], rax
    mov [rbx + 8], rcx
    mov [rbx + 16], rdx
    mov [rbx + 24], r8
    mov [rbx + 32], r11
    mov [rbx + 40], r13
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
