/* Double fault, then triple fault; interrupts, NMI and HLT before that. */
#include "guest.inc"
    START64
main64:
    SAY64 "interrupt held off by cli, taken after sti and one more\n"
    movq $on_irq, handler64
    movb $0x50, %al
    outb %al, $0xf0
    nop
    sti
    incl %ebx
    nop
    cli
    SAY64 "hlt wakes\n"
    movb $0x51, %al
    sti
    outb %al, $0xf0
    nop
    cli
    movb $0x52, %al
    outb %al, $0xf0
    sti
    hlt
    cli
    SAY64 "nmi\n"
    outb %al, $0xf1
    nop
    SAY64 "nmi held off until iret\n"
    movq $on_nmi, handler64
    outb %al, $0xf1
    nop
    SAY64 "double fault\n"
    movq $report64, handler64
    movw $0, idt + 14*16 + 2        /* #PF's gate has a null selector */
    EXPECT64 movl 0x50000000, %eax
    SAY64 "not-present gate: NP\n"
    movw $CODE64, idt + 14*16 + 2
    movb $0x0e, idt + 0x60*16 + 5
    EXPECT64 int $0x60
    SAY64 "beyond the table\n"
    lidt short_idt
    EXPECT64 int $0x60
    SAY64 "triple fault\n"
    lidt no_idt
    ud2
    SAY64 "not reached\n"
    jmp end64
on_irq:
    popq %rax
    call hex64
    movl %ebx, %eax
    call hex64
    call newline64
    popq %rax
    iretq
on_nmi:
    SAY64 "in: "
    outb %al, $0xf1
    nop
    SAY64 "out\n"
    movq $on_irq, handler64
    addq $16, %rsp
    iretq
.data
short_idt: .word 0x20 * 16 - 1
    .quad idt
no_idt: .word 0
    .quad 0
