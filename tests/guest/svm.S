/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svm: a hypervisor of a hundred lines with a guest that counts, for machines that offer SVM.
 *
 * Spec: AMD64 Architecture Programmer's Manual, volume 2, "Secure Virtual Machine", appendix
 * "Layout of VMCB"; Multiboot Specification 0.6.96, "OS image format".
 *
 * A multiboot kernel in 32-bit mode with one page of 4 MiB (KVM lets no hypervisor run without
 * paging).  Port 0xe9 gets a dot each time the guest
 * comes back, "svm-ok" after ROUNDS of them if it counted right every time, else what was
 * wrong.  Nearly all time passes in the guest: who looks, suspends or resets meets it there.
 */
ROUNDS = 60
STEPS = 500000
HSAVE = 0x200000        /* pages of the hypervisor */
VMCB = 0x201000
DIRECTORY = 0x202000
MSR_EFER = 0xc0000080
MSR_HSAVE = 0xc0010117
EXIT_VMMCALL = 0x81

        .code32
        .section .text
        .balign 4
        .long 0x1badb002, 0, -0x1badb002

        .globl _start
_start: mov $stack, %esp
        lgdt gdt_pointer
        ljmp $8, $1f
1:      mov $16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $begin, %esi
        call say
        mov $0x80000001, %eax
        cpuid
        mov $no_svm, %esi
        test $4, %ecx
        jz wrong

        cld
        mov $VMCB, %edi                 /* and the directory behind it */
        mov $2048, %ecx
        xor %eax, %eax
        rep stosl
        movl $0x83, DIRECTORY
        mov $DIRECTORY, %eax
        mov %eax, %cr3
        mov %cr4, %eax
        or $0x10, %eax                  /* PSE */
        mov %eax, %cr4
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        mov $MSR_EFER, %ecx
        rdmsr
        or $0x1000, %eax            /* SVME */
        wrmsr
        mov $MSR_HSAVE, %ecx
        mov $HSAVE, %eax
        xor %edx, %edx
        wrmsr

        movl $0x80000000, VMCB + 0x00c  /* SHUTDOWN */
        movl $3, VMCB + 0x010           /* VMRUN, VMMCALL */
        movl $1, VMCB + 0x058           /* ASID */
        mov $VMCB + 0x400, %edi
        mov $16, %eax                   /* ES, CS, SS, DS, FS, GS: flat */
        mov $6, %ecx
2:      movw %ax, (%edi)
        movw $0xc93, 2(%edi)
        movl $-1, 4(%edi)
        add $16, %edi
        loop 2b
        movw $8, VMCB + 0x410
        movw $0xc9b, VMCB + 0x412
        movl $0x1000, VMCB + 0x4d0      /* EFER.SVME */
        mov %cr4, %eax
        mov %eax, VMCB + 0x548
        mov %cr3, %eax
        mov %eax, VMCB + 0x550
        mov %cr0, %eax
        mov %eax, VMCB + 0x558
        movl $0x400, VMCB + 0x560
        movl $0xffff0ff0, VMCB + 0x568
        movl $2, VMCB + 0x570
        movl $guest, VMCB + 0x578
        movl $guest_stack, VMCB + 0x5d8
        movl $0x00070106, VMCB + 0x668
        movl $0x00070406, VMCB + 0x66c

        xor %ebx, %ebx                  /* what the counter should be */
        mov $ROUNDS, %ebp
again:  mov $VMCB, %eax
        vmrun
        mov $bad_exit, %esi
        cmpl $EXIT_VMMCALL, VMCB + 0x070
        jne wrong
        addl $3, VMCB + 0x578           /* behind the VMMCALL */
        add $STEPS, %ebx
        mov $bad_count, %esi
        cmp %ebx, counter
        jne wrong
        mov $dot, %esi
        call say
        dec %ebp
        jnz again
        mov $fine, %esi
wrong:  call say
        mov $0xfe, %al                  /* the keyboard controller resets the machine */
        out %al, $0x64
3:      hlt
        jmp 3b

say:    lodsb
        test %al, %al
        jz 4f
        out %al, $0xe9
        jmp say
4:      ret

guest:  mov $STEPS, %ecx
5:      addl $1, counter
        dec %ecx
        jnz 5b
        vmmcall
        jmp guest

        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word . - gdt - 1
        .long gdt
begin:  .asciz "svm-begin\n"
dot:    .asciz ".\n"
fine:   .asciz "svm-ok\n"
no_svm: .asciz "svm: not offered\n"
bad_exit: .asciz "svm: another exit\n"
bad_count: .asciz "svm: miscounted\n"
        .data
        .balign 16
counter: .long 0
        .space 4096
stack:  .space 4096
guest_stack:
