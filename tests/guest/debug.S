/* Single step, debug registers, RF, ICEBP, DR6 and DR7, blocked traps after MOV SS. */
#include "guest.inc"
    START64
main64:
    movq $on_debug, handler64
    SAY64 "single step\n"
    pushfq
    orl $0x100, (%rsp)
    popfq
    nop
step2:
    movl $1, %eax
    pushfq
    andl $~0x100, (%rsp)
    popfq
    nop
    SAY64 "mov ss holds the trap back\n"
    movw $DATA32, %dx
    pushfq
    orl $0x100, (%rsp)
    popfq
    movw %dx, %ss
    nop
    pushfq
    andl $~0x100, (%rsp)
    popfq
    nop
    SAY64 "int hides it\n"
    pushfq
    orl $0x100, (%rsp)
    popfq
    int $0x40
    pushfq
    andl $~0x100, (%rsp)
    popfq
    SAY64 "rep, one trap a turn\n"
    movl $0x200000, %edi
    movl $3, %ecx
    pushfq
    orl $0x100, (%rsp)
    popfq
    rep stosb
    pushfq
    andl $~0x100, (%rsp)
    popfq
    nop
    SAY64 "instruction breakpoint\n"
    movl $point, %eax
    movq %rax, %dr0
    movl $0x401, %eax
    movq %rax, %dr7
point:
    nop
    SAY64 "write watch\n"
    movl $0x200010, %eax
    movq %rax, %dr1
    movl $0x00d0000404, %eax        /* DR1: write, 4 bytes */
    movl $0x00d00404, %eax
    movq %rax, %dr7
    movl 0x200010, %eax
    movb %al, 0x200013
    movb %al, 0x200014
    movq %rax, 0x20000c
    SAY64 "access watch\n"
    movl $0x00f00404, %eax
    movq %rax, %dr7
    movl 0x200012, %eax
    xorl %eax, %eax
    movq %rax, %dr7
    movl 0x200012, %eax
    SAY64 "general detect\n"
    movl $0x2400, %eax
    movq %rax, %dr7
    movq %dr0, %rbx
    movq %dr7, %rax
    call hex64
    movq %rbx, %rax
    subq $point, %rax
    call hex64
    call newline64
    SAY64 "icebp\n"
    .byte 0xf1
    movl $0x408, %eax
    movq %cr4, %rbx
    orl $8, %ebx                    /* DE */
    movq %rbx, %cr4
    movq $fatal64, handler64
    EXPECT64 movq %dr4, %rax
    movq $0x100000000, %rax
    EXPECT64 movq %rax, %dr7
    jmp end64
on_debug:                           /* vector, code, rip, cs, flags */
    push %rax
    push %rsi
    movq 16(%rsp), %rax
    call hex64
    movq 32(%rsp), %rax
    subq $main64, %rax
    call hex64
    movq %dr6, %rax
    call hex64
    movq 48(%rsp), %rax
    andl $0x10100, %eax
    call hex64
    call newline64
    movl $0xffff0ff0, %eax
    movq %rax, %dr6
    cmpq $point - main64 + main64, 32(%rsp)
    jne 1f
    orl $0x10000, 48(%rsp)          /* RF: over the breakpoint */
1:  pop %rsi
    pop %rax
    addq $16, %rsp
    iretq
