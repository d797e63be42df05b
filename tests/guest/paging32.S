/* 32-bit paging with 4 KiB and 4 MiB pages, PAE paging with its PDPTEs, global pages. */
#include "guest.inc"
.set dir, 0x140000
.set table, 0x141000
.set pdpt32, 0x142000
.set pae_dir, 0x143000
.set pae_table, 0x147000
    START32
count32: .long 0
main32:
    /* all arithmetic flags to and fro, often enough to be translated; one direction flag */
    xorl %ebx, %ebx
    movl $0xfff, %ecx
1:  movl %ecx, %esi
    andl $0x8d5, %esi
    orl $2, %esi
    pushl %esi
    popfl
    setc %al
    seto %ah
    pushfl
    popl %edx
    movl %esi, %edi
    andl $1, %edi
    btl $11, %esi
    setc %ch
    cmpb %ch, %ah
    jne 2f
    movzbl %al, %eax
    cmpl %edi, %eax
    jne 2f
    cmpl %esi, %edx
    je 3f
2:  incl %ebx
3:  movzbl %cl, %ecx
    addl count32, %ecx
    incl count32
    cmpl $0x1400, count32
    jb 1b
    movl %ebx, %eax
    call hex32
    pushl $0x402
    popfl
    pushfl
    popl %eax
    cld
    call hex32
    call newline32
    movl $dir, %edi
    xorl %eax, %eax
    movl $0x3000, %ecx
    rep stosl
    /* 0-4 MiB: 4 KiB pages; 4-8 MiB: a large page at 8 MiB; 8-12 MiB: nothing */
    movl $table + 7, dir
    movl $0x800087, dir + 4
    movl $table, %edi
    movl $7, %eax
    movl $1024, %ecx
1:  stosl
    addl $0x1000, %eax
    loop 1b
    movl $dir, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x10, %eax                 /* PSE */
    movl %eax, %cr4
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    SAY32 "paging\n"
    movl $0xabcdef01, 0x400000
    movl dir + 4, %eax
    call hex32
    movl dir, %eax
    andl $0xfff, %eax
    call hex32
    call newline32
    EXPECT32 movl 0x800000, %eax
    movl $0x805087, dir + 4         /* bits 12-21: PSE-36 and reserved */
    movl %cr3, %eax
    movl %eax, %cr3
    SAY32 "reserved bit 21\n"
    movl $0xa00087, dir + 4
    movl %cr3, %eax
    movl %eax, %cr3
    EXPECT32 movl 0x400000, %eax
    SAY32 "without WP a supervisor writes anywhere\n"
    movl $0x200005, table + 0x800
    invlpg 0x200000
    movl $1, 0x200000
    movl table + 0x800, %eax
    call hex32
    call newline32
    movl %cr0, %eax
    orl $0x10000, %eax
    movl %eax, %cr0
    EXPECT32 movl %eax, 0x200000
    SAY32 "global\n"
    movl $0x201107, table + 0x804
    movl %cr4, %eax
    orl $0x80, %eax
    movl %eax, %cr4
    movl $0x11, 0x201000
    movl $0x22, 0x202000
    movl $0x202107, table + 0x804   /* stays stale over a CR3 write */
    movl %cr3, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    andl $~0x80, %eax
    movl %eax, %cr4
    movl 0x201000, %eax
    call hex32
    call newline32
    SAY32 "PAE\n"
    movl $pae_dir + 1, pdpt32
    movl $pae_dir + 0x1000 + 1, pdpt32 + 8
    movl $pae_table + 7, pae_dir
    movl $0x87, pae_dir + 8
    movl $pae_table, %edi
    movl $7, %eax
    movl $512, %ecx
2:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x1000, %eax
    loop 2b
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $pdpt32, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x800, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movl $0x77, 0x1000
    movl 0x201000, %eax
    call hex32
    call newline32
    EXPECT32 movl 0x40000000, %eax
    EXPECT32 movl 0x80000000, %eax
    SAY32 "no execute\n"
    movl $0x80000000, pae_dir + 12
    movl %cr3, %eax
    movl %eax, %cr3
    movl $0x200000, %edx
    EXPECT32 call *%edx
    SAY32 "reserved bits in a PDPTE\n"
    movl $pae_dir + 0x2007, pdpt32 + 16
    movl $pdpt32, %edx
    EXPECT32 movl %edx, %cr3
    SAY32 "the PDPTEs are those of the last load\n"
    movl $0, pdpt32
    movl 0x1000, %eax
    call hex32
    call newline32
    jmp end32
