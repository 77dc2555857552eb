// Fibers: separate stacks on one OS thread, and a switch between them that makes no system call.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A fiber belongs to the OS thread that made it and never leaves it. The stack a thread was started with is a fiber, too:
// declare one, and switch away from it. Floating-point control words are not switched, because device code does not change
// them. AddressSanitizer is told of every switch.
#ifndef SIMGPU_DEVICE_FIBER_HPP
#define SIMGPU_DEVICE_FIBER_HPP

#include <stddef.h>

namespace simgpu
{

struct fiber {
    void *stack_pointer = nullptr; // while it is switched away from
    void *mapping = nullptr;       // guard page and stack; null for a thread's own stack
    const void *stack = nullptr;   // lowest address, for AddressSanitizer
    size_t stack_bytes = 0;
    void *fake_stack = nullptr; // AddressSanitizer's
    void (*main)(void *) = nullptr;
    void *argument = nullptr;
};

// Gives `self` a stack on which the first switch calls main(argument), which must never return. False when memory is short.
// `number` should differ between fibers that run by turns.
bool fiber_create(fiber *self, unsigned number, void (*main)(void *), void *argument);

// Frees the stack of a fiber that is switched away from and will not be switched to again.
void fiber_destroy(fiber *self);

// Continues `to`; returns when somebody switches back to `from`, which must be the running fiber.
void fiber_switch(fiber *from, fiber *to);

} // namespace simgpu

#endif
