/*
 * What a hostile guest tries: code at address 0 (which looks like an empty entry), jumps and
 * returns to nowhere, accesses of all sizes that run off the end of memory, stacks there, page
 * tables that show themselves, and more places than a TLB can remember.
 */
#include "guest.inc"
.set TURNS, 40
.set zero, 0
.set END, 0x1000000             /* of memory */
.set HALF, 1 << 39
.set PDPT2, 0x10d000            /* shows the first 2 MiB everywhere */
.set PD2, 0x10e000
.set PLACES, 20000
.macro SHOW text
    SAY64 "\text"
    movq %rbp, %rax
    call hex64
    call newline64
.endm
    START64
main64:
    movq $0x88000, tss + 0x24           /* exceptions have a stack of their own */
    movb $1, idt + 8*16 + 4
    movb $1, idt + 12*16 + 4
    movb $1, idt + 13*16 + 4
    movb $1, idt + 14*16 + 4
    movq %cr4, %rax
    orl $0x600, %eax                    /* SSE */
    movq %rax, %cr4
    /* Code at 0: inc ebp; ret. */
    movl $0x00c3c5ff, 0
    xorl %ebp, %ebp
    movl $TURNS, %r12d
1:  xorl %eax, %eax
    call *%rax
    invlpg -8(%rsp)                     /* its push misses */
    call *%rax
    pushq $2f
    pushq $0
    ret
2:  call zero
    decl %r12d
    jnz 1b
    SHOW "at 0: "
    SAY64 "calls to nowhere\n"
    xorl %r13d, %r13d
3:  movl $TURNS, %r12d
4:  leaq nothing, %rbx
    call *%rbx
    decl %r12d
    jnz 4b
    movq nowhere(, %r13, 8), %rbx
    EXPECT64 call *%rbx
    incl %r13d
    cmpl $8, %r13d
    jne 3b
    SAY64 "returns to nowhere\n"
    xorl %r13d, %r13d
5:  movl $TURNS, %r12d
6:  call nothing
    decl %r12d
    jnz 6b
    pushq nowhere(, %r13, 8)
    EXPECT64 ret
    popq %rax
    incl %r13d
    cmpl $8, %r13d
    jne 5b
    /* Sixteen and thirty-two bytes around the end. */
    movl $0x11111111, %eax
    movd %eax, %xmm0
    pshufd $0, %xmm0, %xmm0
    movl $END - 64, %ebx
7:  movups %xmm0, (%rbx)
    movups (%rbx), %xmm1
    incq %rbx
    cmpq $END + 32, %rbx
    jne 7b
    movq END - 8, %rbp
    SHOW "sixteen bytes: "
    movl $1, %eax
    cpuid
    andl $0x14000000, %ecx              /* XSAVE, AVX: nothing is shown of it */
    cmpl $0x14000000, %ecx
    jne 9f
    movq %cr4, %rax
    orl $0x40000, %eax
    movq %rax, %cr4
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $7, %eax
    xsetbv
    vpxor %xmm0, %xmm0, %xmm0
    movl $END - 64, %ebx
8:  vmovdqu %ymm0, (%rbx)
    vmovdqu (%rbx), %ymm1
    incq %rbx
    cmpq $END + 32, %rbx
    jne 8b
9:  movq $0, END - 8
    movl $END - 1024, %ebx
10: fxsave (%rbx)
    addq $64, %rbx
    cmpq $END + 128, %rbx
    jne 10b
    movq END - 8, %rbp
    SHOW "512 bytes: "
    /* Strings that run off the end. */
    movl $TURNS, %r12d
11: movl $END - 64, %edi
    movb $0x22, %al
    movl $128, %ecx
    rep stosb
    movl $END - 64, %esi
    movl $0x200000, %edi
    movl $64, %ecx
    rep movsb
    movl $0x200000, %esi
    movl $END - 16, %edi
    movl $4, %ecx
    rep movsq
    decl %r12d
    jnz 11b
    movq %rdi, %rbp
    SHOW "strings end at: "
    movq END - 8, %rbp
    addq 0x200000 + 56, %rbp
    SHOW "there: "
    SAY64 "stacks\n"
    movl $TURNS, %r12d
12: movl $END, %ebx
    xchgq %rsp, %rbx
    call nothing
    pushq $3
    popq %rbp
    xchgq %rsp, %rbx
    decl %r12d
    jnz 12b
    SHOW "at the end: "
    movl $END + 16, %ebx
    xchgq %rsp, %rbx
    pushq %rax
    xchgq %rsp, %rbx
    movq %rbx, %rbp
    SHOW "behind it: "
    xorl %ebx, %ebx
    xchgq %rsp, %rbx
    EXPECT64 pushq %rax
    xchgq %rsp, %rbx
    movq $0x8000000000000000, %rbx
    xchgq %rsp, %rbx
    EXPECT64 call nothing
    xchgq %rsp, %rbx
    /* What is known of a page must be known however the instruction in front was done. */
    movl $0x300000 + 7, pt + 0x1000     /* 0x200000 shows 0x300000 */
    invlpg 0x200000
    xorl %ebp, %ebp
    movl $TURNS, %r12d
    subq $256, %rsp
18: invlpg 0x200000
    movq 0x200000, %rdx
    pushq $0x77
    movups (%rsp), %xmm0
    movq %xmm0, %rax
    addq %rax, %rbp
    popq %rax
    decl %r12d
    jnz 18b
    addq $256, %rsp
    SHOW "vector state late: "
    xorl %ebp, %ebp
    movl $TURNS, %r12d
19: movl $END + 64, %ebx                /* no memory: the interpreter pushes it */
    movl $0x200800, %ecx
    movq $0, 0x3007f0
    pushq %rax
    pushq %rdx
    popq %rdx
    popq %rax
    xchgq %rsp, %rcx
    jmp 20f
20: pushq (%rbx)
    pushq $5
    xchgq %rsp, %rcx
    addq 0x3007f0, %rbp
    decl %r12d
    jnz 19b
    SHOW "pushed from nowhere: "
    movl $0x200000 + 7, pt + 0x1000
    invlpg 0x200000
    /* The page tables show themselves in the last slot. */
    movq $pml4 + 7, pml4 + 511 * 8
    movq $0xffffff8000001000, %rbx      /* the entry of 0x200000 */
    movq $1, 0x200000
    movq $2, 0x300000
    xorl %ebp, %ebp
    movl $TURNS, %r12d
13: addq 0x200000, %rbp
    xorq $0x100000, (%rbx)
    invlpg 0x200000
    decl %r12d
    jnz 13b
    SHOW "through themselves: "
    /* The same 2 MiB at more places than any table remembers. */
    movl $PD2, %edi
    movl $0x87, %eax
    movl $512, %ecx
    rep stosq
    movl $PDPT2, %edi
    movl $PD2 + 7, %eax
    movl $512, %ecx
    rep stosq
    movl $pml4 + 8, %edi
    movl $PDPT2 + 7, %eax
    movl $510, %ecx
    rep stosq
    movq $0, 0x150000
    movq $HALF + 0x150000, %rbx
    movq $0x140200000, %rdx
    movl $PLACES, %r12d
14: incq (%rbx)
    addq %rdx, %rbx
    decl %r12d
    jnz 14b
    movq $0xffff800000000000 + 0x150000, %rbx
    movl $PLACES, %r12d
15: incq (%rbx)
    addq %rdx, %rbx
    decl %r12d
    jnz 15b
    movq 0x150000, %rbp
    SHOW "places: "
    movl $TURNS, %r12d                  /* and code there */
    movl $0x00c3c5ff, 0x150000
    xorl %ebp, %ebp
16: movq $HALF + 0x150000, %rbx
    movl $300, %ecx
17: call *%rbx
    addq %rdx, %rbx
    decl %ecx
    jnz 17b
    decl %r12d
    jnz 16b
    SHOW "code there: "
    jmp end64
nothing:
    ret
.section .rodata
.balign 8
nowhere:
    .quad 0x0000800000000000, 0x00007fffffffffff, 0xffffffffffffffff, 0xffff7fffffffffff
    .quad 0x8000000000000000, 0x123456789abcdef0, 0xffff800000000000, 0x0000007fffffff00
