// The context switch, and the stacks to switch between.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/device/fiber.hpp"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what the calling convention lets a function expect unchanged on the stack of `from`, and takes it up again from that of
// `to`. Returns whoever switched back. A new fiber finds both arguments where they are, and so does its entry.
extern "C" simgpu::fiber *simgpu_fiber_switch(simgpu::fiber *from, simgpu::fiber *to) __attribute__((visibility("hidden")));
static_assert(offsetof(simgpu::fiber, stack_pointer) == 0, "the assembly below takes a fiber for its stack pointer");

#if defined(__x86_64__)
asm(R"(
    .text
    .globl simgpu_fiber_switch
    .hidden simgpu_fiber_switch
    .type simgpu_fiber_switch, @function
simgpu_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    movq %rdi, %rax
    ret
    .size simgpu_fiber_switch, .-simgpu_fiber_switch
)");

// Six registers, the address to return to, and a zero where the caller's own return address would be: backtraces end there.
static void *prepare_stack(char *top, void (*entry)(simgpu::fiber *, simgpu::fiber *))
{
    uintptr_t *frame = reinterpret_cast<uintptr_t *>(top) - 8;
    frame[6] = reinterpret_cast<uintptr_t>(entry);
    return frame;
}
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl simgpu_fiber_switch
    .hidden simgpu_fiber_switch
    .type simgpu_fiber_switch, %function
simgpu_fiber_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    ldr x9, [x1]
    mov sp, x9
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size simgpu_fiber_switch, .-simgpu_fiber_switch
)");

static void *prepare_stack(char *top, void (*entry)(simgpu::fiber *, simgpu::fiber *))
{
    uintptr_t *frame = reinterpret_cast<uintptr_t *>(top) - 20;
    frame[11] = reinterpret_cast<uintptr_t>(entry); // x30
    return frame;
}
#else
#error "the fiber switch is written for x86-64 and aarch64"
#endif

namespace simgpu
{

// Device functions keep little on the stack; what is not touched takes no memory.
static constexpr size_t stack_bytes = 128 << 10;

// `self` runs again, or for the first time, after `from`.
static void arrived(fiber *from, fiber *self)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, &from->stack, &from->stack_bytes);
#else
    (void)from;
    (void)self;
#endif
}

static void entry(fiber *from, fiber *self)
{
    arrived(from, self);
    self->main(self->argument);
    __builtin_trap();
}

bool fiber_create(fiber *self, unsigned number, void (*main)(void *), void *argument)
{
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *mapping = mmap(nullptr, guard + stack_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (mapping == MAP_FAILED)
        return false;
    if (mprotect(mapping, guard, PROT_NONE)) {
        munmap(mapping, guard + stack_bytes);
        return false;
    }
    char *stack = static_cast<char *>(mapping) + guard;
    *self = fiber();
    self->mapping = mapping;
    self->stack = stack;
    self->stack_bytes = stack_bytes;
    self->main = main;
    self->argument = argument;
    // Stacks that begin at the same offset in a page would evict each other from the first-level cache.
    self->stack_pointer = prepare_stack(stack + stack_bytes - number % 16 * 256, entry);
    return true;
}

void fiber_destroy(fiber *self)
{
    if (self->mapping)
        munmap(self->mapping, static_cast<size_t>(sysconf(_SC_PAGESIZE)) + stack_bytes);
    self->mapping = nullptr;
}

void fiber_switch(fiber *from, fiber *to)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    arrived(simgpu_fiber_switch(from, to), from);
}

} // namespace simgpu
