// SPDX-License-Identifier: AGPL-3.0-or-later
// The priority classes as users write them and as the pool stores them. scheduler/policy.h says how they affect turns.
#ifndef VGPU_BASE_PRIORITY_H
#define VGPU_BASE_PRIORITY_H

#include <stdint.h>

enum priority { PRIORITY_NORMAL, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_COUNT };

// An unknown class counts as normal, as it does for the scheduler.
static inline const char *priority_name(uint32_t priority)
{
    static const char *const names[PRIORITY_COUNT] = {"normal", "high", "low"};
    return names[priority < PRIORITY_COUNT ? priority : PRIORITY_NORMAL];
}

#endif
