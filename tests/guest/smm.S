/* System management mode: entry from long mode, the save area, a moved SMBASE, HLT. */
#include "guest.inc"
    START64
main64:
    /* the handler at 0x38000 */
    movl $handler, %esi
    movl $0x38000, %edi
    movl $handler_end - handler, %ecx
    rep movsb
    movq $0x1122334455667788, %r13
    SAY64 "before\n"
    outb %al, $0xf2
    nop
    movq %r13, %rax
    call hex64
    movq %cr0, %rax
    call hex64
    movw %cs, %ax
    movzwl %ax, %eax
    call hex64
    call newline64
    SAY64 "again, at another SMBASE\n"
    movl $handler, %esi
    movl $0x58000, %edi
    movl $handler_end - handler, %ecx
    rep movsb
    outb %al, $0xf2
    nop
    EXPECT64 rsm
    SAY64 "an SMI wakes from hlt and goes back into it\n"
    movq $on_irq, handler64
    movb $0x50, %al
    outb %al, $0xf2
    outb %al, $0xf0
    sti
    hlt
    cli
    jmp end64
on_irq:
    SAY64 "irq\n"
    addq $16, %rsp
    iretq
.code16
handler:
    movb $'S', %al
    outb %al, $0xe9
    movw %cs, %ax
    movl %cs:0xfefc, %ebx           /* revision */
    cmpl $0x20064, %ebx
    jne 1f
    movb $'r', %al
    outb %al, $0xe9
1:  movl %cr0, %eax
    testl $0x80000001, %eax
    jnz 2f
    movb $'u', %al                  /* neither paging nor protected */
    outb %al, $0xe9
2:  movl %cs:0xff90, %eax           /* R13's low half */
    cmpl $0x55667788, %eax
    jne 3f
    movb $'s', %al
    outb %al, $0xe9
3:  movl $0x99, %cs:0xff90
    movl $0x50000, %cs:0xff00       /* SMBASE for the next time */
    movb $'\n', %al
    outb %al, $0xe9
    rsm
handler_end:
.code64
