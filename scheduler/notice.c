// SPDX-License-Identifier: AGPL-3.0-or-later
#include "scheduler/notice.h"

#include "pool/pool.h"
#include "scheduler/agent.h"
#include "scheduler/token.h"

void notice_change(struct pool_layout *layout, uint32_t vgpu)
{
    const struct pool_vgpu *record = &layout->vgpus[vgpu];
    _Atomic uint64_t *token = &layout->gpus[record->gpu % POOL_MAX_GPUS].token;
    uint64_t word = atomic_load(token);
    // The agent takes the flag away again where nothing asks for it.
    while (atomic_load(&record->limit_percent) && token_holder(word) == vgpu && !(word & TOKEN_CONTENDED) &&
           !atomic_compare_exchange_weak(token, &word, word | TOKEN_CONTENDED))
        ;
    POOL_EACH_BIT(process, record->members, POOL_MAX_PROCESSES)
    agent_ring(layout, process);
}
