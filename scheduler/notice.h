// SPDX-License-Identifier: AGPL-3.0-or-later
// Makes changed options count at once where nobody would look at them: a holder that nobody waits for takes no decision.
#ifndef VGPU_SCHEDULER_NOTICE_H
#define VGPU_SCHEDULER_NOTICE_H

#include "pool/layout.h"

// After the options of a virtual GPU were changed in the pool: wakes its agents, and where it has a limit now and holds the token, makes
// its launches count. From any process. Lock-free.
void notice_change(struct pool_layout *layout, uint32_t vgpu);

#endif
