// SPDX-License-Identifier: AGPL-3.0-or-later
// Makes changed options count as they should: at once also where nobody would look at them, since a holder that nobody waits for takes no
// decision; and from now on only, since a pass is GPU time by weight.
#ifndef VGPU_SCHEDULER_NOTICE_H
#define VGPU_SCHEDULER_NOTICE_H

#include "pool/layout.h"

// After the options of a virtual GPU, whose weight and priority were those given, were changed in the pool: gives it the pass with which it
// has as much time left, or owes as much, at its new weight as it did at the old one; wakes its agents; and where it has a limit
// now and holds the token, makes its launches count. From any process. Lock-free.
void notice_change(struct pool_layout *layout, uint32_t vgpu, uint32_t weight_before, uint32_t priority_before);

#endif
