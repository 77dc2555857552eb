// SPDX-License-Identifier: AGPL-3.0-or-later
// The priority classes as people write them and as the pool keeps them. What they do to turns is the policy's: scheduler/policy.h.
#ifndef VGPU_BASE_PRIORITY_H
#define VGPU_BASE_PRIORITY_H

#include <stdint.h>

enum priority { PRIORITY_NORMAL, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_COUNT };

// What is none counts as normal, as it does for the scheduler.
static inline const char *priority_name(uint32_t priority)
{
    static const char *const names[PRIORITY_COUNT] = {"normal", "high", "low"};
    return names[priority < PRIORITY_COUNT ? priority : PRIORITY_NORMAL];
}

#endif
