/* SYSCALL, SYSRET, SWAPGS, FS and GS bases, SYSRET to compatibility mode, TSC, XSETBV. */
#include "guest.inc"
.macro WRMSR64 msr, value
    movl $\msr, %ecx
    movq $\value, %rax
    movq %rax, %rdx
    shrq $32, %rdx
    wrmsr
.endm
    START64
main64:
    /* user pages for the user's code: 0x200000 up are user pages already */
    WRMSR64 0xc0000081, 0x0030000800000000      /* STAR: sysret base 0x30, syscall 0x08 */
    movl $CODE64, %eax                          /* syscall: CS 0x18 needs base 0x18 */
    WRMSR64 0xc0000081, 0x0033001800000000
    movq %rax, %rbx
    WRMSR64 0xc0000082, entry
    WRMSR64 0xc0000084, 0x4700
    WRMSR64 0xc0000101, 0x1111000
    WRMSR64 0xc0000102, 0x2222000
    EXPECT64 rdfsbase %rax
    movq %cr4, %rax
    orl $0x10000, %eax
    movq %rax, %cr4
    movq $0x123456789000, %rax
    wrfsbase %rax
    xorl %eax, %eax
    rdfsbase %rax
    call hex64
    call newline64
    movq $0x8000000000000000, %rax
    EXPECT64 wrgsbase %rax
    movl $0xc0000082, %ecx
    movl $0, %eax
    movl $0x800000, %edx
    EXPECT64 wrmsr
    SAY64 "swapgs: "
    swapgs
    rdgsbase %rax
    call hex64
    swapgs
    rdgsbase %rax
    call hex64
    call newline64
    movb $0xee, idt + 0x80*16 + 5
    movq $done, handler64
    pushq $USERDATA
    pushq $0x280000
    pushq $0x202
    pushq $USER64
    movl $user, %esi
    movl $0x200000, %edi
    movl $user_end - user, %ecx
    rep movsb
    pushq $0x200000
    iretq
entry:
    movq %rsp, %r15
    movl $0x90000, %esp
    SAY64 "syscall: rcx "
    movq %rcx, %r14
    movq %rcx, %rax
    call hex64
    SAY64 "r11 "
    movq %r11, %rax
    andl $0xff00, %eax
    call hex64
    SAY64 "cs "
    movw %cs, %ax
    movzwl %ax, %eax
    call hex64
    movw %ss, %ax
    movzwl %ax, %eax
    call hex64
    SAY64 "flags "
    pushfq
    popq %rax
    andl $0xff00, %eax
    call hex64
    call newline64
    movq %r14, %rcx
    movq %r15, %rsp
    cmpl $2, %ebx
    je 1f
    sysretq
1:  sysretl
done:
    SAY64 "done: vector "
    movq (%rsp), %rax
    call hex64
    movq 16(%rsp), %rax
    call hex64
    movq 24(%rsp), %rax
    call hex64
    movq 32(%rsp), %rax
    andl $0xff00, %eax
    call hex64
    movq 48(%rsp), %rax
    call hex64
    call newline64
    SAY64 "bad sysret\n"
    movq $0x800000000000, %rcx
    movl $2, %r11d
    EXPECT64 sysretq
    SAY64 "xsetbv\n"
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $3, %eax
    EXPECT64 xsetbv
    movq %cr4, %rax
    orl $0x40000, %eax
    movq %rax, %cr4
    movl $2, %eax
    EXPECT64 xsetbv
    movl $3, %eax
    xsetbv
    xorl %eax, %eax
    xgetbv
    call hex64
    call newline64
    SAY64 "tsc goes up: "
    rdtsc
    shlq $32, %rdx
    orq %rax, %rdx
    movq %rdx, %rbx
    rdtscp
    shlq $32, %rdx
    orq %rax, %rdx
    xorl %eax, %eax
    cmpq %rbx, %rdx
    seta %al
    call hex64
    call newline64
    jmp end64
user:
    movl $1, %ebx
    movl $0x280000, %esp
    syscall
    movl $2, %ebx
    syscall
.code32
    /* compatibility mode now, whose flags are those that SYSRET loaded */
    movl $0x33333333, %edx
    incl %edx
    int $0x80
user_end:
.code64
