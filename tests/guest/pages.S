/* Paging: A and D flags, error codes, WP, NX, SMEP, SMAP, user pages, INVLPG, 2 MiB pages. */
#include "guest.inc"
.set PAGE, 0x200000             /* its entry: pt + 0x1000 */
.set ENTRY, pt + 0x1000
.macro FLAGS_OF entry
    movl \entry, %eax
    andl $0x67, %eax
    call hex64
.endm
    START64
main64:
    SAY64 "fresh, read, written: "
    movl $PAGE + 7, ENTRY
    invlpg PAGE
    FLAGS_OF ENTRY
    movl PAGE, %eax
    FLAGS_OF ENTRY
    movl %eax, PAGE
    FLAGS_OF ENTRY
    call newline64
    SAY64 "directories: "
    FLAGS_OF pd+8
    FLAGS_OF pml4
    call newline64
    SAY64 "read-only with WP\n"
    movl $PAGE + 5, ENTRY
    invlpg PAGE
    EXPECT64 movl %eax, PAGE
    FLAGS_OF ENTRY
    call newline64
    movq %cr0, %rax
    andl $~0x10000, %eax
    movq %rax, %cr0
    movl $0x55, PAGE
    SAY64 "without: "
    FLAGS_OF ENTRY
    call newline64
    movq %cr0, %rax
    orl $0x10000, %eax
    movq %rax, %cr0
    SAY64 "stale entry, then invlpg\n"
    movl $PAGE + 0x67, ENTRY
    invlpg PAGE
    movl PAGE, %eax
    movl $0, ENTRY
    invlpg PAGE
    EXPECT64 movl PAGE, %eax
    SAY64 "no execute\n"
    movl $PAGE + 7, ENTRY
    movl $0x80000000, ENTRY + 4
    invlpg PAGE
    movb $0xc3, PAGE
    movl $PAGE, %edx
    EXPECT64 call *%rdx
    movl $0, ENTRY + 4
    invlpg PAGE
    SAY64 "reserved bits\n"
    movl $PAGE + 7, ENTRY
    movl $0x00080000, ENTRY + 4
    invlpg PAGE
    EXPECT64 movl PAGE, %eax
    movl $0, ENTRY + 4
    invlpg PAGE
    SAY64 "SMEP\n"
    movl $PAGE, %edx
    movb $0xc3, PAGE
    /* all pages below 2 MiB become supervisor pages */
    movl $pt, %edi
    movl $512, %ecx
2:  andb $~4, (%rdi)
    addl $8, %edi
    loop 2b
    movq %cr3, %rax
    movq %rax, %cr3
    movq %cr4, %rax
    orl $0x100000, %eax
    movq %rax, %cr4
    EXPECT64 call *%rdx
    SAY64 "SMAP\n"
    movq %cr4, %rax
    orl $0x200000, %eax
    movq %rax, %cr4
    EXPECT64 movl PAGE, %eax
    EXPECT64 movl %eax, PAGE
    stac
    movl PAGE, %eax
    clac
    SAY64 "user mode\n"
    movq %cr4, %rax
    andl $~0x300000, %eax
    movq %rax, %cr4
    movl $user, %esi
    movl $PAGE, %edi
    movl $user_end - user, %ecx
    rep movsb
    movl $PAGE + 0x1007, ENTRY + 8      /* the user's stack */
    movl $PAGE + 0x2003, ENTRY + 16     /* not the user's */
    movl $PAGE + 0x3005, ENTRY + 24     /* read-only */
    movb $0xee, idt + 0x80*16 + 5
    movq $0x80000, tss + 4
    movq $from_user, handler64
    pushq $USERDATA
    pushq $PAGE + 0x2000
    pushq $0x3002
    pushq $USER64
    pushq $PAGE
    iretq
from_user:
    popq %rax
    movq %rax, %rbp
    call hex64
    popq %rax
    call hex64
    cmpl $14, %ebp
    jne 1f
    movq %cr2, %rax
    call hex64
1:  call newline64
    cmpl $0x80, %ebp
    je end64
    addq %r8, (%rsp)            /* the user says how long the faulting instruction is */
    iretq
user:
    movl $7, %r8d
    movl PAGE + 0x2010, %ebx
    movl %ebx, PAGE + 0x3020
    movl $7, %r8d
    movl 0x10000, %ebx
    movb $'u', %al
    movl $2, %r8d
    outb %al, $0xe9
    movl $1, %r8d
    cli
    hlt
    movl $3, %r8d
    movq %cr0, %rax
    movl $2, %r8d
    wrmsr
    movl $0, %r8d
    int $0x80
user_end:
