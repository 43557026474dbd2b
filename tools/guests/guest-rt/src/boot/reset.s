# The way from TD entry to 64-bit code, and the TDVF metadata beside it.
#
# A TD vCPU starts in 32-bit flat protected mode at 0xFFFFFFF0: paging off, CR0 = 0x21, CR4 = 0x2040,
# EFER = 0x901. Long mode and NX are already enabled; writing EFER would raise #VE, for which there is no handler
# yet, so the stub never does. EBX = GPA width, ECX = TD HOB, ESI = vCPU index.
#
# Nothing outside the measured firmware volume is trusted: memory of unmeasured sections may hold whatever the
# host likes, so the stub writes every byte that is used later (payload copy, zeroed bss with the page tables
# and stacks in it), and the word on which the other vCPUs wait is inside the volume.

.section .boot.data, "aw", @progbits
.balign 64
.globl ap_mailbox
ap_mailbox:
    .long 0                             # vCPUs released: index < this may go
    .long 0                             # bytes of one vCPU's area
    .quad 0                             # area of vCPU 1

.balign 16
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            # 0x08 64-bit code
    .quad 0x00CF93000000FFFF            # 0x10 flat data
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

.balign 16
    .byte 0xf3, 0xf9, 0xea, 0xe9, 0x8e, 0x16, 0xd5, 0x44    # e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae
    .byte 0xa8, 0xeb, 0x7f, 0x4d, 0x87, 0x38, 0xf6, 0xae
.globl tdvf_descriptor
tdvf_descriptor:
    .ascii "TDVF"
    .long tdvf_descriptor_end - tdvf_descriptor
    .long 1                             # version
    .long (tdvf_descriptor_end - tdvf_sections) / 32
tdvf_sections:
    # The firmware volume: measured, ends at 4 GiB.
    .long 0
    .long bfv_size
    .quad bfv_base
    .quad bfv_size
    .long {BFV}
    .long {MR_EXTEND}
    # The guest's own memory: payload, page tables, stacks.
    .long 0
    .long 0
    .quad ram_base
    .quad ram_size
    .long {TEMP_MEM}
    .long 0
    # Where the host describes the machine.
    .long 0
    .long 0
    .quad {TD_HOB_BASE}
    .quad {TD_HOB_SIZE}
    .long {TD_HOB}
    .long 0
    # Memory that is promised but added only when the guest accepts it.
    .long 0
    .long 0
    .quad {POOL_BASE}
    .quad {POOL_SIZE}
    .long {PERM_MEM}
    .long {PAGE_AUG}
tdvf_descriptor_end:

.section .boot.guids, "a", @progbits
guid_table:
    .long tdvf_from_end
    .word 22
    .byte 0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47    # e47a6535-984a-4798-865e-4685a7bf8ec2
    .byte 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2
    .word guid_table_end - guid_table
    .byte 0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45    # 96b582de-1fb2-45f7-baea-a366c55a082d
    .byte 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d
guid_table_end:

.section .boot.reset, "ax", @progbits
.code32
.globl reset_vector
reset_vector:
    jmp boot32
    .balign 16, 0xF4

.section .boot.text, "ax", @progbits
.code32
.globl boot32
boot32:
    cli
    cld
    test esi, esi
    jnz 3f

    # The first vCPU builds the world.
    mov ebp, ecx
    mov esi, offset bfv_base
    mov edi, offset ram_base
    mov ecx, offset payload_dwords
    rep movsd
    mov edi, offset bss_start
    mov ecx, offset bss_dwords
    xor eax, eax
    rep stosd

    # Identity map of 4 GiB: one PML4 entry, four PDPT entries, 2048 entries of 2 MiB, present and writable.
    mov dword ptr [boot_pml4], offset boot_pdpt + 3
    mov dword ptr [boot_pdpt], offset boot_pd + 0x0003
    mov dword ptr [boot_pdpt + 8], offset boot_pd + 0x1003
    mov dword ptr [boot_pdpt + 16], offset boot_pd + 0x2003
    mov dword ptr [boot_pdpt + 24], offset boot_pd + 0x3003
    mov edi, offset boot_pd
    mov eax, 0x83
    mov ecx, 2048
2:
    mov dword ptr [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    xor esi, esi
    jmp 4f

    # The others wait until the first one has a stack for them. TDCALL is not available in 32-bit mode.
3:
    cmp esi, dword ptr [ap_mailbox]
    jb 4f
    pause
    jmp 3b

    # PAE, and SSE before any compiled code; then paging, which makes long mode active.
4:
    lgdt [boot_gdt_pointer]
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, cr0
    and eax, 0xFFFFFFF3
    or eax, 0x80010002
    mov cr0, eax
    .byte 0xEA                          # jmp far 0x08:entry64
    .long entry64
    .word 0x08

.section .text.entry64, "ax", @progbits
.code64
.globl entry64
entry64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    test esi, esi
    jnz 5f
    mov esp, offset boot_area + {AREA_SIZE}
    mov edi, ebp
    call rt_first_vcpu
    ud2
5:
    # The mailbox is beyond the reach of a 32-bit displacement from here.
    movabs rax, offset ap_mailbox
    mov ecx, dword ptr [rax + 4]
    mov edi, esi
    imul rcx, rdi
    add rcx, qword ptr [rax + 8]
    mov rsp, rcx
    call rt_other_vcpu
    ud2

.section .rodata.ap_mailbox, "a", @progbits
.balign 8
.globl ap_mailbox_address
ap_mailbox_address:
    .quad ap_mailbox

.text
