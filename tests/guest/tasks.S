/* Hardware task switches: far jump, far call with IRET back, a task gate for an exception. */
#include "guest.inc"
.set TSS_B, FREE_SEL
.set TSS_C, FREE_SEL + 8
.set GATE, FREE_SEL + 16
.set LDT, FREE_SEL + 24
.set tss_b, 0x120000
.set tss_c, 0x121000
    START32
main32:
    /* descriptors */
    movl $(tss_b << 16) & 0xffffffff | 0x67, free_slots
    movl $0x00008900 | tss_b >> 16, free_slots + 4
    movl $(tss_c << 16) & 0xffffffff | 0x67, free_slots + 8
    movl $0x00008900 | tss_c >> 16, free_slots + 12
    movl $TSS_C << 16, free_slots + 16
    movl $0x00008500, free_slots + 20
    movl $0x0000ffff, free_slots + 24     /* LDT at 0x130000 */
    movl $0x00008213, free_slots + 28
    movl $0x0000ffff, 0x130000
    movl $0x00cf9200, 0x130004
    movl $tss_b, %ebx
    movl $task_b, %ecx
    call fill
    movw $LDT, tss_b + 0x60
    movw $4, tss_b + 0x58               /* FS from the LDT */
    movl $tss_c, %ebx
    movl $task_c, %ecx
    call fill
    SAY32 "call task\n"
    movl $0xaaaa, %edi
    lcall $TSS_B, $0
    SAY32 "back, edi "
    movl %edi, %eax
    call hex32
    movl %cr0, %eax
    andl $8, %eax
    call hex32
    pushfl
    popl %eax
    andl $0x4000, %eax
    call hex32
    movzbl free_slots + 5, %eax
    call hex32
    strw %ax
    movzwl %ax, %eax
    call hex32
    call newline32
    SAY32 "again: it goes on behind its iret\n"
    lcall $TSS_B, $0
    SAY32 "exception through a task gate\n"
    movl $TSS_C << 16, idt + 13*8
    movl $0x00008500, idt + 13*8 + 4
    movl $0x12345678, %ecx
    rdmsr
after_rdmsr:
    SAY32 "returned from the handler task\n"
    EXPECT32 lcall $CODE32 + 0x1000, $0
    SAY32 "jump to a busy task\n"
    movl $0x8e00, %eax
    movl $stubs32 + 13*16, %edx
    movw %dx, %ax
    movl $CODE32 << 16, %eax
    movw %dx, %ax
    movl %eax, idt + 13*8
    movw $0x8e00, %dx
    movl %edx, idt + 13*8 + 4
    EXPECT32 ljmp $TSS, $0
    SAY32 "a TSS that is too small\n"
    movw $0x66, free_slots
    EXPECT32 ljmp $TSS_B, $0
    jmp end32
fill:                                   /* ebx: TSS, ecx: entry */
    movl %ebx, %edi
    pushl %ecx
    xorl %eax, %eax
    movl $26, %ecx
    rep stosl
    popl %ecx
    movl %ecx, 0x20(%ebx)
    movl $2, 0x24(%ebx)
    movl %ebx, 0x38(%ebx)
    addl $0x1000, 0x38(%ebx)
    movl $DATA32, 0x48(%ebx)
    movl $CODE32, 0x4c(%ebx)
    movl $DATA32, 0x50(%ebx)
    movl $DATA32, 0x54(%ebx)
    movl $DATA32, 0x58(%ebx)
    movl $DATA32, 0x5c(%ebx)
    ret
task_b:
    SAY32 "task b: flags "
    pushfl
    popl %eax
    andl $0x4002, %eax
    call hex32
    movzwl tss_b, %eax
    call hex32
    movl %fs:0x10, %edx
    sldt %ax
    movzwl %ax, %eax
    call hex32
    movl tss + 0x44, %eax               /* the caller's edi */
    call hex32
    call newline32
    movl $0xbbbb, %edi
    iretl
    SAY32 "task b again\n"
    iretl
    jmp task_b
task_c:
    SAY32 "task c: code "
    popl %eax
    call hex32
    movl tss + 0x20, %eax
    subl $after_rdmsr, %eax
    call hex32
    call newline32
    addl $2, tss + 0x20                 /* behind the instruction */
    iretl
    SAY32 "task c again: code "
    popl %eax
    call hex32
    call newline32
    movl resume, %eax
    movl %eax, tss + 0x20
    iretl
    jmp end32
