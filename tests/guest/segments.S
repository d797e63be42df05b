/* Segment limits and types, call gates, privilege changes, IRET's corner cases, 16-bit code. */
#include "guest.inc"
.macro SLOT n, low, high
    movl $\low, free_slots + \n * 8 - 8
    movl $\high, free_slots + \n * 8 - 4
.endm
.set SEL1, FREE_SEL
.set SEL2, FREE_SEL + 8
.set SEL3, FREE_SEL + 16
    START32
main32:
    SAY32 "limits\n"
    SLOT 1, 0x00000fff, 0x00409220      /* 4 KiB of data at 0x200000 */
    movw $SEL1, %ax
    movw %ax, %gs
    movl $0x11223344, %gs:0xffc
    movl %gs:0xffc, %eax
    call hex32
    call newline32
    EXPECT32 movl %gs:0xffd, %eax
    EXPECT32 movb %al, %gs:0x1000
    EXPECT32 movl %gs:0xfffffffe, %eax
    SAY32 "expand-down\n"
    SLOT 1, 0x00000fff, 0x00409620
    movw $SEL1, %ax
    movw %ax, %gs
    EXPECT32 movl %gs:0xfff, %eax
    movl %gs:0x1000, %eax
    SAY32 "read-only\n"
    SLOT 1, 0x00000fff, 0x00409020
    movw $SEL1, %ax
    movw %ax, %gs
    movl %gs:0, %eax
    EXPECT32 movl %eax, %gs:0
    movw $SEL1, %dx
    EXPECT32 movw %dx, %ss
    SAY32 "code\n"
    EXPECT32 movl %eax, %cs:0x200000
    SLOT 1, 0x00000fff, 0x00409820      /* execute only */
    movw $SEL1, %ax
    EXPECT32 movw %ax, %gs
    SAY32 "not present\n"
    SLOT 1, 0x00000fff, 0x00401220
    movl $SEL1, %edx
    EXPECT32 movw %dx, %fs
    EXPECT32 movw %dx, %ss
    EXPECT32 ljmp $SEL1, $0
    SAY32 "null\n"
    xorl %edx, %edx
    movw %dx, %fs
    EXPECT32 movl %fs:0, %eax
    EXPECT32 movw %dx, %ss
    EXPECT32 ljmp $3, $0
    SAY32 "lar, lsl, verr, verw: "
    movw $CODE32, %dx
    larw %dx, %ax
    movzwl %ax, %eax
    call hex32
    lsll %edx, %eax
    call hex32
    verw %dx
    sete %al
    movzbl %al, %eax
    call hex32
    verr %dx
    sete %al
    movzbl %al, %eax
    call hex32
    movw $0x7ff8, %dx
    movl $0x77, %eax
    larl %edx, %eax
    call hex32
    call newline32
    SAY32 "arpl: "
    movw $0x20, %ax
    movw $3, %dx
    arpl %dx, %ax
    sete %dl
    movzwl %ax, %eax
    call hex32
    movzbl %dl, %eax
    call hex32
    call newline32
    SAY32 "lock and lengths\n"
    EXPECT32 .byte 0xf0, 0x90
    EXPECT32 .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90
    SAY32 "bound, into, int3\n"
    movl $0, 0x200000
    movl $5, 0x200004
    movl $6, %eax
    EXPECT32 bound %eax, 0x200000
    movl $5, %eax
    bound %eax, 0x200000
    movl $0x7fffffff, %eax
    addl $1, %eax
    EXPECT32 into
    EXPECT32 int3
    SAY32 "conforming\n"
    SLOT 1, 0x0000ffff, 0x00cf9e00
    lcall $SEL1, $conforming
    SAY32 "call gate, same level\n"
    movl $gate_target, %eax
    movl $CODE32 << 16, %edx
    movw %ax, %dx
    movl %edx, free_slots + 8
    movw $0xec02, %ax                   /* two parameters */
    movl %eax, free_slots + 12
    lcall $SEL2, $0
    SAY32 "to user mode\n"
    movb $0xee, idt + 0x80*8 + 5
    movl $from_user, handler32
    pushl $USERDATA
    pushl $0x70000
    pushl $2
    pushl $USER32
    pushl $user
    iretl
conforming:
    movw %cs, %ax
    movzwl %ax, %eax
    call hex32
    call newline32
    lretl
gate_target:
    SAY32 "gate: cs "
    movw %cs, %ax
    movzwl %ax, %eax
    call hex32
    SAY32 "sp "
    movl %esp, %eax
    call hex32
    call newline32
    testb $3, 4(%esp)
    jz 1f
    SAY32 "parameters: "
    movl 8(%esp), %eax
    call hex32
    movl 12(%esp), %eax
    call hex32
    SAY32 "old ss "
    movl 20(%esp), %eax
    call hex32
    call newline32
    lretl $8
1:  lretl
from_user:
    pushl %ds
    pushl $DATA32
    popl %ds
    movl 4(%esp), %eax
    movl %eax, %ebp
    call hex32
    movl 8(%esp), %eax
    call hex32
    movl 20(%esp), %eax             /* flags */
    andl $0x3202, %eax
    call hex32
    call newline32
    popl %ds
    cmpl $0x80, %ebp
    je 2f
    addl $8, %esp
    addl %edi, (%esp)
    iretl
2:  SAY32 "iret to bad places\n"
    addl $28, %esp
    movl $report32, handler32
    pushl $USERDATA
    pushl $0x70000
    pushl $2
    pushl $USER32
    pushl $0
    movl $0x3f, 4(%esp)             /* a data segment as CS */
    EXPECT32 iretl
    movl $USER32, 4(%esp)
    movl $DATA32, 16(%esp)          /* the kernel's SS */
    EXPECT32 iretl
    movl $0, 16(%esp)
    EXPECT32 iretl
    movl $0x2007ff8, 4(%esp)
    EXPECT32 iretl
    addl $20, %esp
    SAY32 "16-bit code: "
    ljmp $CODE16, $code16 - 0x10000
.code16
code16:
    movw $DATA16, %ax
    movw %ax, %ss
    movl $0x12340000, %esp          /* 16-bit stack: wraps to fffe, upper half stays */
    pushw $0x7777
    movl %esp, %eax
    popw %bx
    movw $0x1234, %cx
    movw $0xffff, %cx
    incw %cx
    ljmpl $CODE32, $back32
.code32
back32:
    movw $DATA32, %dx
    movw %dx, %ss
    movl $0x90000, %esp
    call hex32
    movzwl %bx, %eax
    call hex32
    call newline32
    jmp end32
.macro movw_nothing
.endm
user:
    movw $USERDATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movl $1, %edi
    hlt
    cli
    movl $3, %edi
    movl %cr0, %eax
    movl $2, %edi
    outb %al, $0xe9
    movl $2, %edi
    pushl $0x3202
    popfl                           /* IF and IOPL stay */
    movl $2, %edi
    int $0x30                       /* gate of DPL 0 */
    movl $7, %edi
    lcall $CODE32, $0
    movw $DATA32, %ax
    movl $2, %edi
    movw %ax, %ds
    pushl $0x22222222
    pushl $0x11111111
    lcall $SEL2 | 3, $0
    int $0x80
