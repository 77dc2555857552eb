// SPDX-License-Identifier: AGPL-3.0-or-later
// An exported function that calls NAME_route to find its target, and jumps there with its own arguments and its own return
// address. All machine code of the library is here.
#ifndef VGPU_SHIM_TRAMPOLINE_H
#define VGPU_SHIM_TRAMPOLINE_H

// What a trampoline does: jump to `jump` with its own arguments or, if that is NULL, return `value`. Two registers on both
// architectures.
struct route {
    void *jump;
    void *value;
};

// TRAMPOLINE(name, caller_register) defines `name`, a function of up to three arguments. It passes them to name_route and puts
// the address of its caller into caller_register, the register of name_route's last argument.
#if defined(__x86_64__)
#define THIRD_ARGUMENT "rdx"
#define FOURTH_ARGUMENT "rcx"
// On entry the stack is misaligned by 8; three pushes correct that. A route is returned in rax and rdx.
#define TRAMPOLINE(name, caller_register)                                                                                      \
    __asm__(".text\n"                                                                                                          \
            ".p2align 4\n"                                                                                                     \
            ".globl " #name "\n"                                                                                               \
            ".type " #name ", @function\n"                                                                                     \
            ".hidden " #name "_route\n" #name ":\n"                                                                            \
            "    .cfi_startproc\n"                                                                                             \
            "    endbr64\n"                                                                                                    \
            "    push %rdi\n"                                                                                                  \
            "    .cfi_adjust_cfa_offset 8\n"                                                                                   \
            "    push %rsi\n"                                                                                                  \
            "    .cfi_adjust_cfa_offset 8\n"                                                                                   \
            "    push %rdx\n"                                                                                                  \
            "    .cfi_adjust_cfa_offset 8\n"                                                                                   \
            "    mov 24(%rsp), %" caller_register "\n"                                                                         \
            "    call " #name "_route\n"                                                                                       \
            "    mov %rdx, %r11\n"                                                                                             \
            "    pop %rdx\n"                                                                                                   \
            "    .cfi_adjust_cfa_offset -8\n"                                                                                  \
            "    pop %rsi\n"                                                                                                   \
            "    .cfi_adjust_cfa_offset -8\n"                                                                                  \
            "    pop %rdi\n"                                                                                                   \
            "    .cfi_adjust_cfa_offset -8\n"                                                                                  \
            "    test %rax, %rax\n"                                                                                            \
            "    je 1f\n"                                                                                                      \
            "    jmp *%rax\n"                                                                                                  \
            "1:  mov %r11, %rax\n"                                                                                             \
            "    ret\n"                                                                                                        \
            "    .cfi_endproc\n"                                                                                               \
            ".size " #name ", . - " #name "\n")
#elif defined(__aarch64__)
#define THIRD_ARGUMENT "x2"
#define FOURTH_ARGUMENT "x3"
// hint 34 is bti c. A route is returned in x0 and x1.
#define TRAMPOLINE(name, caller_register)                                                                                      \
    __asm__(".text\n"                                                                                                          \
            ".p2align 4\n"                                                                                                     \
            ".globl " #name "\n"                                                                                               \
            ".type " #name ", %function\n"                                                                                     \
            ".hidden " #name "_route\n" #name ":\n"                                                                            \
            "    .cfi_startproc\n"                                                                                             \
            "    hint 34\n"                                                                                                    \
            "    stp x29, x30, [sp, -48]!\n"                                                                                   \
            "    .cfi_def_cfa_offset 48\n"                                                                                     \
            "    .cfi_offset 29, -48\n"                                                                                        \
            "    .cfi_offset 30, -40\n"                                                                                        \
            "    mov x29, sp\n"                                                                                                \
            "    stp x0, x1, [sp, 16]\n"                                                                                       \
            "    str x2, [sp, 32]\n"                                                                                           \
            "    mov " caller_register ", x30\n"                                                                               \
            "    bl " #name "_route\n"                                                                                         \
            "    mov x16, x0\n"                                                                                                \
            "    mov x17, x1\n"                                                                                                \
            "    ldp x0, x1, [sp, 16]\n"                                                                                       \
            "    ldr x2, [sp, 32]\n"                                                                                           \
            "    ldp x29, x30, [sp], 48\n"                                                                                     \
            "    .cfi_def_cfa_offset 0\n"                                                                                      \
            "    .cfi_restore 29\n"                                                                                            \
            "    .cfi_restore 30\n"                                                                                            \
            "    cbz x16, 1f\n"                                                                                                \
            "    br x16\n"                                                                                                     \
            "1:  mov x0, x17\n"                                                                                                \
            "    ret\n"                                                                                                        \
            "    .cfi_endproc\n"                                                                                               \
            ".size " #name ", . - " #name "\n")
#else
#error "CUDA runs on x86-64 and aarch64 Linux only"
#endif

#endif
