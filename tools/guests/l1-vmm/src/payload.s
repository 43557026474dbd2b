# What runs in the L2 VM: 32-bit protected mode, flat, no paging, so that addresses are the TD's own.
#
# hello: EBX this code's address, ESI the text, EDI a page that may be read, EBP a page that the VM does not have.
# copy:  ESI from, EDI to.

    .pushsection .rodata
    .balign 16
    .code32
    .global l2_payload
    .global l2_payload_text
    .global l2_payload_after
    .global l2_payload_copy
    .global l2_payload_end
l2_payload:
    mov edx, 0x3f8
1:  mov al, [esi]
    test al, al
    jz 2f
    out dx, al
    inc esi
    jmp 1b
2:  mov eax, 0x40000000
    cpuid
    mov eax, [edi]
    add eax, ecx
    mov [edi + 4], eax
    mov ecx, [ebp]
    mov [edi + 8], ecx
    mov [ebx], eax
    mov dword ptr [edi + 8], 0
l2_payload_after:
    hlt
l2_payload_copy:
    mov eax, [esi]
    mov [edi], eax
    hlt
l2_payload_text:
    .asciz "hello from an L2 VM"
l2_payload_end:
    .code64
    .popsection
