/* Virtual-8086 mode: entry by IRET, sensitive instructions, INT through the monitor, I/O. */
#include "guest.inc"
    START32
main32:
    movl $idt + 13*8, %edi
    movl $monitor, handler32
    movb $0xee, idt + 0x21*8 + 5
    /* the 8086 program lies at 0x30000 */
    movl $program, %esi
    movl $0x30000, %edi
    movl $program_end - program, %ecx
    rep movsb
    movl $0x200, %edi               /* one vector of its table: int 0x80 */
    movw $handler - program, (%edi)
    movw $0x3000, 2(%edi)
    movw $0x68, tss + 0x66          /* I/O bitmap: port 0xe9 allowed, others not */
    movl $tss + 0x68, %edi
    movl $0xffffffff, %eax
    movl $0x40, %ecx
    rep stosl
    andb $~0x02, tss + 0x68 + 0xe9/8
    movw $0x2000, gdt + TSS
    pushl $0x1111                   /* gs fs ds es */
    pushl $0x2222
    pushl $0x3000
    pushl $0x4000
    pushl $0x5000                   /* ss */
    pushl $0xfffe
    pushl $0x20002                  /* VM, IOPL 0 */
    pushl $0x3000
    pushl $0
    iretl
monitor:                            /* vector, code, eip, cs, eflags, esp, ss, es, ds, fs, gs */
    pusha
    movw $DATA32, %ax
    movw %ax, %ds
    movw %ax, %es
    movl 32(%esp), %eax
    call hex32
    movl 36(%esp), %eax
    call hex32
    movl 40(%esp), %eax
    call hex32
    movl 44(%esp), %eax
    call hex32
    movl 48(%esp), %eax
    andl $0xffffffd7, %eax
    call hex32
    movl 52(%esp), %eax
    call hex32
    movl 60(%esp), %eax
    call hex32
    movl 68(%esp), %eax
    call hex32
    movl 72(%esp), %eax
    call hex32
    call newline32
    movl 44(%esp), %edx             /* the instruction that was refused */
    shll $4, %edx
    addl 40(%esp), %edx
    movzbl (%edx), %eax
    call hex32
    call newline32
    cmpb $0xcd, %al
    je 5f
    addl $1, 40(%esp)
    cmpb $0xf4, %al
    jne 1f
1:  cmpb $0xe4, %al
    jne 2f
    addl $1, 40(%esp)
2:  popa
    addl $8, %esp
    iretl
5:  /* reflect INT n into the 8086 program */
    movzbl 1(%edx), %ecx
    cmpb $0x21, %cl
    je 9f
    movl 56(%esp), %edi
    shll $4, %edi
    subw $6, 52(%esp)
    movzwl 52(%esp), %ebx
    addl %ebx, %edi
    movl 40(%esp), %eax
    addl $2, %eax
    movw %ax, (%edi)
    movl 44(%esp), %eax
    movw %ax, 2(%edi)
    movl 48(%esp), %eax
    movw %ax, 4(%edi)
    movzwl (,%ecx,4), %eax
    movl %eax, 40(%esp)
    movzwl 2(,%ecx,4), %eax
    movl %eax, 44(%esp)
    popa
    addl $8, %esp
    iretl
9:  SAY32 "done\n"
    jmp end32
.code16
program:
    movb $'8', %al
    outb %al, $0xe9
    cli
    sti
    inb $0x60, %al
    hlt
    int $0x80
    movw $0x4321, %ax
    movw %ax, %ds
    movw $0xffff, %bx
    .byte 0x8a, 0x07                /* mov al, [bx]: the last byte, allowed */
    int $0x21
handler:
    movb $'i', %al
    outb %al, $0xe9
    addw $6, %sp
    ljmpw $0x3000, $1f - program
1:  pushw $0x5555
    popw %cx
    movb $'r', %al
    outb %al, $0xe9
    movw $0x4321, %ax
    movw %ax, %ds
    int $0x21
program_end:
