/*
 * Accesses from one base register: over pages that are no neighbours, into pages that are not
 * there or cannot be written, from addresses that wrap or are none.
 */
#include "guest.inc"
.set LOW, 0x200000              /* shows 0x300000; its entry: pt + 0x1000 */
.set HIGH, 0x201000             /* shows 0x320000 */
.set ENTRY, pt + 0x1008         /* of HIGH */
.set TURNS, 40
.macro SHOW text
    SAY64 "\text"
    movq %rbp, %rax
    call hex64
    call newline64
.endm
    START64
main64:
    /* All arithmetic flags to and fro, often enough to be translated. */
    /* Downwards, over itself in both directions; a port, over the end of a page. */
    movl $0x400000, %ebx
    call number_bytes
    movl $0x40001f, %esi
    movl $0x400027, %edi
    call copy_downwards
    SHOW "copied: "
    call number_bytes
    movl $0x400027, %esi
    movl $0x40001f, %edi
    call copy_downwards
    SHOW "repeated: "
    call number_bytes
    movl $0xf5, %edx
    movl $0x400fc0, %edi
    movl $100, %ecx
    rep insb
    movl $0x400fc0, %ebx
    call sum_bytes
    SHOW "from a port: "
    xorl %ebp, %ebp
    movl $0x1fff, %r12d
1:  movl %r12d, %esi
    andl $0x8d5, %esi
    orl $2, %esi
    pushq %rsi
    popfq
    seto %al
    setz %dl
    pushfq
    popq %rdi
    cmpq %rsi, %rdi
    jne 2f
    shrl $6, %edi
    xorl %edi, %edx
    testb $1, %dl
    jnz 2f
    shrl $5, %edi
    xorl %edi, %eax
    testb $1, %al
    jz 3f
2:  incl %ebp
3:  decl %r12d
    jnz 1b
    SHOW "flags: "
    /* From kernel to kernel, often enough to be translated; then with a stack segment that is
       gone, to an address that is none, and with another flag. */
    xorl %ebp, %ebp
    movl $TURNS, %r12d
1:  movl $2f, %edx
    movq %rsp, %r13
    call return_to_kernel
2:  cmpq %r13, %rsp
    sete %al
    movzbl %al, %eax
    addq %rax, %rbp
    decl %r12d
    jnz 1b
    SHOW "irets: "
    movl $3f, %edx
    andb $0x7f, gdt + DATA32 + 5
    EXPECT64 call return_to_kernel
3:  orb $0x80, gdt + DATA32 + 5
    movabsq $0x800000000000, %rdx
    EXPECT64 call return_to_kernel
    movl $4f, %edx
    pushq $0x4002                       /* NT, without which IRET puts it back */
    popfq
    EXPECT64 call return_to_kernel
4:  pushq $2
    popfq
    movq $0x88000, tss + 0x24           /* exceptions have a stack of their own */
    movb $1, idt + 12*16 + 4
    movb $1, idt + 13*16 + 4
    movb $1, idt + 14*16 + 4
    movl $0x300000 + 7, pt + 0x1000
    movl $0x320000 + 7, ENTRY
    invlpg LOW
    invlpg HIGH
    movl $LOW, %edi
    xorl %eax, %eax
    movl $0x400, %ecx
    rep stosq
    /* A stack frame at each place around the end of a page. */
    xorl %ebp, %ebp
    movl $HIGH + 0x80, %ebx
1:  movl $TURNS, %r12d
2:  xchgq %rsp, %rbx
    movl $11, %esi
    call frame
    addq %rax, %rbp
    xchgq %rsp, %rbx
    decl %r12d
    jnz 2b
    subq $8, %rbx
    cmpq $HIGH - 0x60, %rbx
    jne 1b
    SHOW "frames: "
    /* Fields at each place, also not aligned. */
    xorl %ebp, %ebp
    movl $HIGH + 8, %ebx
3:  movl $TURNS, %r12d
4:  movl %r12d, %edx
    call fields
    addq %rax, %rbp
    decl %r12d
    jnz 4b
    decq %rbx
    cmpq $HIGH - 0x28, %rbx
    jne 3b
    SHOW "fields: "
    movq HIGH - 8, %rbp
    addq HIGH, %rbp
    SHOW "left there: "
    SAY64 "the third field is in a page that is not there\n"
    movl $TURNS, %r12d
5:  movl $HIGH - 16, %ebx
    movl $0x300000 + 7, pt + 0x1000
    movl $0x320000 + 7, ENTRY
    invlpg HIGH
    movl $5, %edx
    call fields
    decl %r12d
    jnz 5b
    movl $0, ENTRY
    invlpg HIGH
    movl $77, %edx
    EXPECT64 call fields
    movq HIGH - 16, %rbp
    SHOW "first: "
    movq HIGH - 8, %rbp
    SHOW "second: "
    SAY64 "the frame reaches into it\n"
    movl $HIGH + 16, %ebx
    xchgq %rsp, %rbx
    EXPECT64 call frame
    xchgq %rsp, %rbx
    SAY64 "it can be read only\n"
    movl $0x320000 + 5, ENTRY
    invlpg HIGH
    movl $78, %edx
    movl $HIGH - 16, %ebx
    EXPECT64 call fields
    movq HIGH - 16, %rbp
    SHOW "first: "
    call readers
    movq %rax, %rbp
    SHOW "read: "
    movl $0x320000 + 7, ENTRY
    invlpg HIGH
    SAY64 "addresses that are none\n"
    movl $TURNS, %r12d
6:  movl $HIGH, %ebx
    call fields
    decl %r12d
    jnz 6b
    movq $0x0000800000000000, %rbx
    EXPECT64 call fields
    movq $0x00007ffffffffff0, %rbx      /* the third one is */
    EXPECT64 call fields
    movq $0xffff7ffffffffff8, %rbx
    EXPECT64 call fields
    movq $-8, %rbx                      /* the second one is at 0 */
    EXPECT64 call fields
    movq $0x123456789abcdef0, %rbx
    EXPECT64 call readers
    SAY64 "wild stacks\n"
    movq $0x0000800000000008, %rbx
    xchgq %rsp, %rbx
    EXPECT64 pushq %rax
    xchgq %rsp, %rbx
    movq $0xffff800000000008, %rbx
    xchgq %rsp, %rbx
    EXPECT64 pushq %rax
    xchgq %rsp, %rbx
    SAY64 "the end of memory: "
    movl $0x1000000 - 24, %ebx
    movl $TURNS, %r12d
7:  movl %r12d, %edx
    call fields
    decl %r12d
    jnz 7b
    movq %rax, %rbp
    SHOW ""
    movl $0x1000000 - 16, %ebx          /* the third field is beyond */
    call fields
    movq 0x1000000 - 8, %rbp
    SHOW "beyond: "
    jmp end64
/* rsi: something; rax: a sum of what was pushed and kept */
frame:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    subq $24, %rsp
    movq %rsi, (%rsp)
    movl $100, %r13d
    movq %r13, 8(%rsp)
    leaq (%rsi, %rsi), %rbp
    movq %rbp, 16(%rsp)
    addq $3, (%rsp)
    movq (%rsp), %rax
    addq 8(%rsp), %rax
    addq 16(%rsp), %rax
    addq $24, %rsp
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
number_bytes:
    movl $127, %ecx
1:  movb %cl, (%rbx, %rcx)
    decl %ecx
    jns 1b
    ret
copy_downwards:
    movl $32, %ecx
    std
    rep movsb
    cld
/* rbp = sum of 128 bytes at rbx, each times its place */
sum_bytes:
    xorl %ebp, %ebp
    movl $127, %ecx
1:  movzbl (%rbx, %rcx), %eax
    imull %ecx, %eax
    addq %rax, %rbp
    decl %ecx
    jns 1b
    ret
/* rdx: where */
return_to_kernel:
    leaq 8(%rsp), %rbx
    movl %ss, %eax
    pushq %rax
    pushq %rbx
    pushfq
    movl %cs, %eax
    pushq %rax
    pushq %rdx
    iretq
/* rbx: three fields; edx: something; rax: their sum */
fields:
    movq %rdx, (%rbx)
    leaq 1(%rdx), %rcx
    movq %rcx, 8(%rbx)
    addq $5, 8(%rbx)
    movl %edx, 16(%rbx)
    movl $0, 20(%rbx)
readers:
    movq (%rbx), %rax
    addq 8(%rbx), %rax
    addq 16(%rbx), %rax
    ret
