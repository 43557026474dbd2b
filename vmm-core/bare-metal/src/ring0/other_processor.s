# Where every processor but the first goes on, in 64-bit mode with memory below 4 GiB mapped to itself: it gets SSE, the
# host's page tables and its stack, then Rust. One is started at a time, so that the two words are its own.

.text
.balign 16
.globl bare_metal_other_processor
bare_metal_other_processor:
    cli
    cld
    mov rax, cr4
    or rax, 0x620
    mov cr4, rax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov rax, qword ptr [rip + {ROOT}]
    mov cr3, rax
    mov rsp, qword ptr [rip + {STACK}]
    xor ebp, ebp
    call {begin}
    ud2
