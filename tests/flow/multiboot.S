/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A multiboot kernel for tests: writes its command line, the text and first bytes of its
 * module and the memory map to the serial port, tries isa-debug-exit's and pc-testdev's ports,
 * and exits with code 2 * 0x15 + 1.
 */
    .set FLAGS, 3
    .text
    .globl _start
    .align 4
    .long 0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
_start:
    mov $stack, %esp
    mov %ebx, %ebp
    cmp $0x2badb002, %eax
    jne fail
    mov 16(%ebp), %esi /* command line */
    call print
    mov 24(%ebp), %edi /* modules */
    cmpl $1, 20(%ebp)
    jne 1f
    mov 8(%edi), %esi
    call print
    mov (%edi), %esi
    call print
1:  mov 48(%ebp), %edi /* memory map */
    mov 44(%ebp), %ecx
    add %edi, %ecx
2:  cmp %ecx, %edi
    jae 3f
    cmpl $1, 20(%edi)
    jne 4f
    mov 4(%edi), %eax
    call number
    mov 12(%edi), %eax
    call number
    mov $newline, %esi
    call print
4:  add (%edi), %edi
    add $4, %edi
    jmp 2b
3:  call testdev
    call vmport
    mov $0x501, %dx
    mov $0x15, %al
    out %al, %dx
fail:
    hlt
    jmp fail

/* pc-testdev echoes what is written to 0xe0; its flush-page and IRQ ports must not hurt. */
testdev:
    mov $0x12345678, %eax
    mov $0xe0, %dx
    out %eax, %dx
    xor %eax, %eax
    in %dx, %eax
    cmp $0x12345678, %eax
    jne 5f
    mov $good, %esi
    call print
5:  ret

/* VMware's port says its version, or all ones where -M vmport=off; the pointer's driver's steps. */
vmport:
    mov $10, %ecx
    call backdoor
    cmp $0x564d5868, %ebx
    jne 9f
    call number
    mov $0x45414552, %ebx /* is there a pointer? */
    mov $41, %ecx
    call backdoor
    mov $40, %ecx
    call backdoor
    call number
    mov $1, %ebx
    mov $39, %ecx
    call backdoor
    call number
    mov $0x53424152, %ebx /* absolute, please */
    mov $41, %ecx
    call backdoor
    mov $ready, %esi
    call print
10: mov $40, %ecx
    call backdoor
    cmp $8, %ax
    jb 10b
    mov $4, %ebx
    mov $39, %ecx
    call backdoor
    push %ecx
    push %ebx
    call number
    pop %eax
    call number
    pop %eax
    call number
9:  mov $newline, %esi
    jmp print
backdoor:
    mov $0x564d5868, %eax
    mov $0x5658, %dx
    in %dx, %eax
    ret

print:
    mov $0x3f8, %dx
6:  lodsb
    test %al, %al
    jz 7f
    out %al, %dx
    jmp 6b
7:  mov $10, %al
    out %al, %dx
    ret

number:
    push %ecx
    mov %eax, %ebx
    mov $8, %ecx
    mov $0x3f8, %dx
8:  rol $4, %ebx
    mov %bl, %al
    and $15, %al
    cmp $10, %al
    sbb $0x69, %al
    das
    out %al, %dx
    loop 8b
    mov $32, %al
    out %al, %dx
    pop %ecx
    ret

newline:
    .asciz ""
good:
    .asciz "pc-testdev echoes"
ready:
    .asciz "pointer is absolute"
    .bss
    .skip 4096
stack:
