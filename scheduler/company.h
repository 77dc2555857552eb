// SPDX-License-Identifier: AGPL-3.0-or-later
// Company: virtual GPUs that run beside the holder of the token, where all of them allow it (VGPU_CONCURRENCY). For programs that do not
// fill the GPU and whose contexts it runs at the same time: clients of MPS, and virtual GPUs of one process.
//
// The token still has one holder, and each of its moves is still one compare-and-swap. The holder's agent invites those who wait into its
// grant, as companions; the grant's end is theirs too. A companion's record in the pool (`companion`) has the grant that it was invited
// into, as the token word without flags, and TOKEN_REVOKED once its gate is closed. So a grant that is over takes its companions along
// without a write, and who was stopped while he invited invites into nothing.
//
// Invariants
//  - Nobody runs beside others who has not agreed to as many: with a company of n, n is at most the concurrency of each.
//  - Who closes the gate of a grant (TOKEN_REVOKED) looks for companions after that, and who launches as a companion looks at the token after he
//    has counted in: a companion's launch is seen by the drain, or does not take place. The same holds for the one companion
//    whose own gate is closed.
//  - Who ends a grant whose holder does not drain (it has exited, is dead or late) closes the gate first and leaves the move to the last
//    companion that drains; companions that do not drain in time are not waited for longer than a holder.
//  - GPU time is booked once: a company of n is charged one n-th each. What companions are charged for is deducted from the holder
//    (`gpu.company_ns`, of the grant).
//  - Companions are of the holder's class. Shares stay those of the weights: a companion that gets ahead of the holder by two rounds leaves, and a
//    holder that gets ahead of a companion so far passes it the token.
// Lock-free.
#ifndef VGPU_SCHEDULER_COMPANY_H
#define VGPU_SCHEDULER_COMPANY_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gate.h"

// No member is active in a generation of this number; those of the token have 24 bits.
#define COMPANY_NO_GENERATION UINT32_MAX

// Whether a virtual GPU is a companion in the grant that `word` describes; and whether its own gate is closed. Nobody is beside nobody.
static inline bool company_has(const struct pool_vgpu *vgpu, uint64_t word)
{
    return token_holder(word) != POOL_NO_INDEX &&
           token_without_flags(atomic_load(&vgpu->companion)) == token_without_flags(word);
}

static inline bool company_has_closed(const struct pool_vgpu *vgpu, uint64_t word)
{
    return atomic_load(&vgpu->companion) == (token_without_flags(word) | TOKEN_REVOKED);
}

// Whether a process of this virtual GPU may launch under `word`: as the holder, or as a companion, whose launches always count against the
// window: who finds that the holder has just forgotten its waiters asks for it again.
static inline bool company_may_launch(const struct gate *gate, uint64_t word)
{
    uint32_t holder = token_holder(word);
    if (word & TOKEN_REVOKED || holder == POOL_NO_INDEX)
        return false;
    if (holder == gate->vgpu_index)
        return true;
    return word & TOKEN_CONTENDED && atomic_load(&gate->vgpu->companion) == token_without_flags(word);
}

// The first companion from number `from` on in the grant that `word` describes, POOL_MAX_VGPUS where there is none.
uint32_t company_next(const struct gate *gate, uint64_t word, uint32_t from);

#define COMPANY_EACH(vgpu, gate, word)                                                                                         \
    for (uint32_t vgpu = company_next(gate, word, 0); vgpu < POOL_MAX_VGPUS; vgpu = company_next(gate, word, vgpu + 1))

// Whether there is a place for virtual GPU number `vgpu` beside the holder that `word` names and its companions.
bool company_admits(const struct gate *gate, uint32_t vgpu, uint64_t word);

// For the agent of the holder, at each look: invites who has got furthest behind among those who wait, if there is a place.
void company_invite(struct gate *gate, uint64_t word, uint64_t now_ns);

// A launch of a companion, under the grant that `word` describes; from the first one on it is charged.
void company_begin(struct gate *gate, uint64_t word);

// Books what this companion has had of the GPU since the last time. From its agent, at each look, before its record says that it has drained.
void company_charge(struct gate *gate, uint64_t word, uint64_t now_ns);

// Whether this companion has to leave: it is ahead of its share, its cap is used up, or, since options have changed, the company is larger
// than it or the holder allows or the holder of another class.
bool company_must_leave(const struct gate *gate, uint64_t word, uint64_t now_ns);

// The companion that the holder has got ahead of by two rounds, and that therefore is to hold the token; POOL_NO_INDEX where there is none.
uint32_t company_outrun(const struct gate *gate, uint64_t word, uint64_t now_ns);

// Closes the gate of this companion, whose processes then drain; and ends the company once all have. false: it was closed or over.
bool company_close(struct gate *gate, uint64_t word);
void company_leave(struct gate *gate, uint64_t word);

// Closes the gate of the grant that *word describes if it may have companions. Returns whether any of them still works; then the last to
// drain passes the token on. For who ends the grant of a holder that does not drain: it exits, is dead or late, or was never there.
bool company_detains(struct gate *gate, uint64_t *word);

// Makes the agents of all companions look, and those of their threads that sleep since they have missed the invitation.
void company_ring(const struct gate *gate, uint64_t word);

#endif
