# The state at the 64-bit entry of the Linux/x86 boot protocol: flat segments 0x10 (code) and 0x18 (data), RSI =
# boot_params, interrupts off, the identity map still on.
#
# RDI = entry point, RSI = boot_params.

.section .rodata.kernel_gdt, "a", @progbits
.balign 16
kernel_gdt:
    .quad 0
    .quad 0
    .quad 0x00AF9B000000FFFF            # 0x10 64-bit code
    .quad 0x00CF93000000FFFF            # 0x18 flat data
kernel_gdt_end:
kernel_gdt_pointer:
    .word kernel_gdt_end - kernel_gdt - 1
    .quad kernel_gdt

.text
.globl enter_kernel
enter_kernel:
    cli
    cld
    lgdt [rip + kernel_gdt_pointer]
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    push 0x10
    push rdi
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor edi, edi
    xor ebp, ebp
    retfq
