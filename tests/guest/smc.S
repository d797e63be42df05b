/* Code that is changed: by itself, just before it runs, in a loop, across pages, by rep movs. */
#include "guest.inc"
    START64
main64:
    SAY64 "next instruction: "
    movb $0x22, 1f + 1
    jmp 1f
1:  movl $0x11, %eax
    call hex64
    movb $0x33, 2f + 1
2:  movl $0x11, %eax
    call hex64
    call newline64
    SAY64 "loop: "
    xorl %ebx, %ebx
    movl $100, %ecx
3:  addl $1, %ebx
    incb 3b + 2
    loop 3b
    movq %rbx, %rax
    call hex64
    call newline64
    SAY64 "generated: "
    movl $0x200000, %edi
    movl $0x1000, %ecx
    xorl %eax, %eax
4:  movl $template, %esi
    movl $0x200ffe, %edi
    push %rcx
    movl $template_end - template, %ecx
    rep movsb
    pop %rcx
    movl %ecx, 0x200fff
    movl $0x200ffe, %edx
    push %rax
    call *%rdx
    pop %rdx
    addq %rdx, %rax
    loop 4b
    call hex64
    call newline64
    SAY64 "through another address: "
    movl $0x300000 + 7, pt + 0x1000         /* 0x200000 shows 0x300000 */
    movl $0x300000 + 7, pt + 0x1800
    invlpg 0x200000
    movl $0x300000, %edx
    movb $0xb8, 0x300000
    movl $1, 0x300001
    movb $0xc3, 0x300005
    call *%rdx
    call hex64
    movl $2, 0x200001
    call *%rdx
    call hex64
    call newline64
    SAY64 "remapped: "
    movl $0x310000 + 7, pt + 0x1800
    movl $0x310000 + 7, pt + 0x1880
    movb $0xb8, 0x310000
    movl $3, 0x310001
    movb $0xc3, 0x310005
    invlpg 0x300000
    call *%rdx
    call hex64
    call newline64
    SAY64 "in ROM: "
    movl $0x1310000, %edx                   /* what was made last */
    movl $100, %ecx
5:  call *%rdx
    movl %ecx, 1(%rdx)
    movb $0xcc, (%rdx)
    loop 5b
    call hex64
    movl $4, 0x310001
    call *%rdx
    call hex64
    call newline64
    jmp end64
template:
    movl $0, %eax
    ret
template_end:
