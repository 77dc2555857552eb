// SPDX-License-Identifier: AGPL-3.0-or-later
// Makes changed options count as they should: at once, even where nobody would look, since a holder that nobody waits for makes
// no decisions; and only from now on, since a pass is GPU time by weight.
#ifndef VGPU_SCHEDULER_NOTICE_H
#define VGPU_SCHEDULER_NOTICE_H

#include "pool/layout.h"

// After a change of a virtual GPU's options in the pool, with the weight and priority it had before: gives it the pass that
// leaves it as much time, or debt, at its new weight as it had at the old one; wakes its agents; and if it now has a limit and
// holds the token, makes its launches count. From any process. Lock-free.
void notice_change(struct pool_layout *layout, uint32_t vgpu, uint32_t weight_before, uint32_t priority_before);

// If this virtual GPU has a limit and holds the token, makes its launches count. Also for who has found that it has none, and
// then changed the token: a limit that came in between was noticed too early.
void notice_limit(struct pool_layout *layout, uint32_t vgpu);

#endif
