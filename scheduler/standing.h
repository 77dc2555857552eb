// SPDX-License-Identifier: AGPL-3.0-or-later
// How a virtual GPU stands: what the policy is told of it, and what GPU time is charged to it.
//
// Invariants
//  - Booking adds, never stores: no update is lost, and a process killed halfway loses at most its own.
//  - What is read of a virtual GPU is bounded before use: nonsense in the pool costs only fairness.
// Lock-free.
#ifndef VGPU_SCHEDULER_STANDING_H
#define VGPU_SCHEDULER_STANDING_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gate.h"
#include "scheduler/policy.h"

struct policy_rules standing_rules(const struct gate *gate);

// The entry of virtual GPU number `vgpu`, without the grant it may hold now, whose time is booked when it ends.
struct policy_entry standing_of(const struct gate *gate, uint32_t vgpu);

// The entry, as of now, of the holder that `word` names, with the running grant less what was charged to its companions.
struct policy_entry standing_of_holder(const struct gate *gate, uint64_t word, uint64_t now_ns);

// The most of the GPU's time, in percent, that a virtual GPU may have; 0: no cap.
uint32_t standing_cap(const struct pool_vgpu *vgpu);

// Books used_ns of GPU time, the last of it until now_ns, to a virtual GPU's pass and cap.
void standing_use(const struct gate *gate, uint32_t vgpu, uint64_t used_ns, uint64_t now_ns);

#endif
