/* Alignment checks: only with CR0.AM, RFLAGS.AC and CPL 3. */
#include "guest.inc"
    START64
main64:
    movq %cr0, %rax
    orl $0x40000, %eax
    movq %rax, %cr0
    pushfq
    orl $0x40000, (%rsp)
    popfq
    movl 0x200001, %eax             /* the kernel may */
    SAY64 "kernel\n"
    movb $0xee, idt + 0x80*16 + 5
    movq $report, handler64
    movl $user, %esi
    movl $0x200000, %edi
    movl $user_end - user, %ecx
    rep movsb
    pushq $USERDATA
    pushq $0x280000
    pushq $0x40202
    pushq $USER64
    pushq $0x200000
    iretq
report:
    popq %rax
    movl %eax, %ebp
    call hex64
    popq %rax
    call hex64
    call newline64
    cmpl $0x80, %ebp
    je end64
    addq $7, (%rsp)
    iretq
user:
    movl 0x210004, %ebx
    movl 0x210002, %ebx
    movw 0x210002, %bx
    movl %ebx, 0x210001
    xchgl %ebx, 0x210fff
    incl 0x210003
    movb 0x210001, %bl
    int $0x80
user_end:
