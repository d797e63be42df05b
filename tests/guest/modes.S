/* Real mode, 32-bit protected mode, 64-bit mode, compatibility mode; exceptions of each. */
#include "guest.inc"
    START64
main64:
    SAY64 "long mode\n"
    movq $0x123456789abcdef0, %rax
    call hex64
    call newline64
    lcall *far32
    SAY64 "long mode again\n"
    EXPECT64 ud2
    EXPECT64 int3
    EXPECT64 movq 0x40000000, %rax
    EXPECT64 movq %rax, 0x40000ffc
    movq $0x8000000000000000, %rbx
    EXPECT64 movq (%rbx), %rax
    EXPECT64 pushq (%rbx)
    movq %rsp, %r15
    movq %rbx, %rsp
    movq $report64, handler64
    movq $1f, resume
    movq %r15, resume_sp
    movb $1, idt + 12*16 + 4    /* #SS on IST 1: the stack is what is broken */
    movq $0x78000, tss + 0x24
    pushq %rax
1:  movb $0, idt + 12*16 + 4
    EXPECT64 int $0x80
    xorl %ecx, %ecx
    EXPECT64 div %ecx
    movl $0x12345678, %ecx
    EXPECT64 rdmsr
    movq $0x1000000000, %rax
    EXPECT64 movq %rax, %cr4
    movq %cr0, %rax
    btsq $33, %rax
    EXPECT64 movq %rax, %cr0
    EXPECT64 movq %rax, %cr8
    movw $FREE_SEL + 0x800, %ax
    EXPECT64 movw %ax, %ds
    movw $CODE64, %ax
    EXPECT64 movw %ax, %ss
    EXPECT64 .byte 0xf0, 0x01, 0xc1
    EXPECT64 ljmp *bad_far
    EXPECT64 movq 0x7ffffffffffc, %rax
    /* a jump to a non-canonical address faults at the jump */
    movq $0x800000000000, %rdx
    EXPECT64 jmp *%rdx
    SAY64 "flags: "
    pushfq
    popq %rax
    andl $0xfffffff3, %eax
    call hex64
    call newline64
    jmp end64
.data
far32: .long compat
    .word CODE32
bad_far: .long 0
    .word FREE_SEL + 0x800
.code32
.text
compat:
    SAY32 "compatibility mode\n"
    movl $-1, %eax
    incl %eax
    call hex32
    call newline32
    lret
