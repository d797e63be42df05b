/* KVM's paravirtual features: CPUID, steal time, TLB flush of a sleeper, one call for many IPIs. */
#include "guest.inc"
.set AREA, 0x101000
.set PAGE, 0x200000
.set ENTRY, pt + 0x1000
.set STEAL, 0x4b564d03
.macro SETMSR msr, value
    movl $\msr, %ecx
    movl $\value, %eax
    xorl %edx, %edx
    wrmsr
.endm
    START64
main64:
    movl $0x40000001, %eax
    cpuid
    andl $0xa60, %eax           /* steal time, EOI, TLB flush, IPI */
    call hex64
    call newline64
    SETMSR STEAL, AREA + 1
    movl $STEAL, %ecx
    movl $AREA + 3, %eax
    EXPECT64 wrmsr
    movl $STEAL, %ecx
    rdmsr
    call hex64
    call newline64
    SAY64 "another flushes while we sleep: "
    movl $0x11, PAGE
    movl $0x22, PAGE + 0x1000
    movl $PAGE + 0x1007, ENTRY  /* no INVLPG */
    movl $woken, %eax
    movq %rax, handler64
    movb $0x40, %al
    outb %al, $0xf3             /* the harness waits until we sleep, wants a flush and wakes us */
    sti
    hlt
woken:
    movl $0x90000, %esp
    cli
    movl PAGE, %eax
    call hex64
    movzbl AREA + 16, %eax      /* not asleep any more */
    call hex64
    movl AREA + 8, %eax         /* no update is going on */
    andl $1, %eax
    call hex64
    call newline64
    SETMSR STEAL, 0
    SAY64 "calls: "
    movl $called, %eax
    movq %rax, handler64
    movl $10, %eax              /* CPUs 0, 3 and 64 get vector 0x41 */
    movl $9, %ebx
    movl $1, %ecx
    xorl %edx, %edx
    movl $0x41, %esi
    vmcall
    call hex64
    sti
    nop
    cli
    SAY64 "no interrupt\n"
called:
    movl $0x90000, %esp
    SAY64 "interrupted "
    movl $10, %eax
    movl $0x841, %esi           /* a logical destination */
    vmcall
    call hex64
    movl $99, %eax
    vmcall
    call hex64
    call newline64
    jmp end64
