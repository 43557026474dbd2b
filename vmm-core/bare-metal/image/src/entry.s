# Where boot loaders enter the image, on the first processor, with interrupts off:
#
#   image_entry_64         64-bit mode, RSI = the zero page (Linux boot protocol, "64-bit boot protocol")
#   image_entry_pvh        32-bit mode without paging, EBX = hvm_start_info (PVH)
#   image_entry_multiboot2 32-bit mode without paging, EAX = magic, EBX = information (multiboot2)
#
# All of them end in image_main(EDI = how, RSI = the structure), in 64-bit mode with the first 4 GiB mapped to themselves,
# SSE on, and the stack of the first processor's area.

.section .multiboot2, "a", @progbits
.balign 8
image_multiboot2:
    .long 0xE85250D6
    .long 0                             # i386, 32-bit protected mode
    .long image_multiboot2_end - image_multiboot2
    .long -(0xE85250D6 + (image_multiboot2_end - image_multiboot2)) & 0xFFFFFFFF
    # Where to enter.
    .word 3
    .word 0
    .long 12
    .long image_entry_multiboot2
    .balign 8
    # Modules begin at pages.
    .word 6
    .word 0
    .long 8
    # The end.
    .word 0
    .word 0
    .long 8
image_multiboot2_end:

# XEN_ELFNOTE_PHYS32_ENTRY
.section .note.image, "a", @note
.balign 4
.globl image_note
image_note:
    .long 4
    .long 8
    .long 18
    .asciz "Xen"
    .quad image_entry_pvh

.text
.code32
.balign 16
image_entry_pvh:
    mov edi, 1
    jmp 2f
image_entry_multiboot2:
    mov edi, 2
    cmp eax, 0x36D76289
    je 2f
    mov edi, -1
2:
    cli
    cld
    mov esi, ebx
    # The first 4 GiB, in pages of 2 MiB: one PML4 entry, four PDPT entries, 2048 entries.
    mov dword ptr [image_pml4], offset image_pdpt + 3
    mov dword ptr [image_pdpt], offset image_pd + 0x0003
    mov dword ptr [image_pdpt + 8], offset image_pd + 0x1003
    mov dword ptr [image_pdpt + 16], offset image_pd + 0x2003
    mov dword ptr [image_pdpt + 24], offset image_pd + 0x3003
    mov edx, offset image_pd
    mov eax, 0x83
    mov ecx, 2048
3:
    mov dword ptr [edx], eax
    add eax, 0x200000
    add edx, 8
    dec ecx
    jnz 3b
    # PAE and SSE; long mode with no-execute; paging.
    lgdt [image_gdt_pointer]
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, offset image_pml4
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    and eax, 0xFFFFFFF3
    or eax, 0x80010022
    mov cr0, eax
    .byte 0xEA                          # jmp far 0x08:image_common
    .long image_common
    .word 0x08

.code64
.balign 16
.globl image_entry_64
image_entry_64:
    cli
    cld
    xor edi, edi
    mov rax, cr4
    or rax, 0x620
    mov cr4, rax
    mov rax, cr0
    and rax, 0xFFFFFFFFFFFFFFF3
    or rax, 0x22
    mov cr0, rax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x800
    wrmsr
image_common:
    mov esi, esi                        # structures are below 4 GiB
    lea rsp, [rip + {AREAS}]
    add rsp, {STACK_TOP}
    xor ebp, ebp
    call {main}
    ud2

.section .rodata.image_gdt, "a", @progbits
.balign 8
image_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 0x08 64-bit code
    .quad 0x00CF93000000FFFF            # 0x10 flat data
image_gdt_pointer:
    .word 23
    .long image_gdt

.section .bss.image_tables, "aw", @nobits
.balign 4096
image_pml4: .skip 4096
image_pdpt: .skip 4096
image_pd:   .skip 4096 * 4
.text
