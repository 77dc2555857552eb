// SPDX-License-Identifier: AGPL-3.0-or-later
// Company: virtual GPUs that run beside the holder of the token, if all of them allow it (VGPU_CONCURRENCY). For programs that
// do not fill the GPU, and whose contexts the GPU runs at the same time: clients of MPS, and virtual GPUs of one process.
//
// The token still has one holder, and each of its moves is still one compare-and-swap. The holder's agent invites waiting
// virtual GPUs into its grant, as companions, and they stop when the grant ends. A companion's record in the pool (`companion`)
// names the grant that it was invited into, as the token word without flags, with TOKEN_REVOKED once its own gate is closed. So
// a grant that ends dismisses its companions without a write, and an invitation by a process that was stopped meanwhile has no
// effect.
//
// Invariants
//  - No virtual GPU runs beside more others than it has agreed to: the size of a company is at most the concurrency of each.
//  - A process that closes the gate of a grant (TOKEN_REVOKED) looks for companions after that, and a companion that launches
//    looks at the token after it has counted in. So the drain sees a companion's launch, or the launch does not take place. The
//    same holds for a single companion whose own gate is closed.
//  - A process that ends a grant whose holder does not drain (it has exited, is dead or late) closes the gate first and leaves
//    the move to the last companion that drains. Companions get as long for that as a holder does.
//  - GPU time is booked once: in a company of n each is charged an n-th. What companions are charged is deducted from the
//    holder (`gpu.company_ns`, which belongs to the grant).
//  - Companions are of the holder's class. Weights still hold: a companion that is two rounds ahead of the holder leaves, and a
//    holder that is two rounds ahead of a companion passes it the token.
// Lock-free.
#ifndef VGPU_SCHEDULER_COMPANY_H
#define VGPU_SCHEDULER_COMPANY_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/gate.h"

// Whether a virtual GPU is a companion in the grant that `word` describes; and whether its own gate is closed. A token that
// nobody holds has no companions.
static inline bool company_has(const struct pool_vgpu *vgpu, uint64_t word)
{
    return token_holder(word) != POOL_NO_INDEX &&
           token_without_flags(atomic_load(&vgpu->companion)) == token_without_flags(word);
}

static inline bool company_has_closed(const struct pool_vgpu *vgpu, uint64_t word)
{
    return atomic_load(&vgpu->companion) == (token_without_flags(word) | TOKEN_REVOKED);
}

// Whether a process of this virtual GPU may launch under `word`: as the holder, or as a companion. A companion's launches
// always count against the window, so it needs CONTENDED; if the holder has just dropped that flag, the companion asks for it
// again.
static inline bool company_may_launch(const struct gate *gate, uint64_t word)
{
    uint32_t holder = token_holder(word);
    if (word & TOKEN_REVOKED || holder == POOL_NO_INDEX)
        return false;
    if (holder == gate->vgpu_index)
        return true;
    return word & TOKEN_CONTENDED && atomic_load(&gate->vgpu->companion) == token_without_flags(word);
}

// The first companion from number `from` on in the grant that `word` describes, POOL_MAX_VGPUS if there is none.
uint32_t company_next(const struct gate *gate, uint64_t word, uint32_t from);

#define COMPANY_EACH(vgpu, gate, word)                                                                                         \
    for (uint32_t vgpu = company_next(gate, word, 0); vgpu < POOL_MAX_VGPUS; vgpu = company_next(gate, word, vgpu + 1))

// Whether there is a place for virtual GPU number `vgpu` beside the holder that `word` names and its companions.
bool company_admits(const struct gate *gate, uint32_t vgpu, uint64_t word);

// For the holder's agent, at each look: invites the waiting virtual GPU that is furthest behind, if there is a place.
void company_invite(struct gate *gate, uint64_t word, uint64_t now_ns);

// A launch of a companion under the grant that `word` describes. From the first one on it is charged.
void company_begin(struct gate *gate, uint64_t word);

// Books this companion's part of the GPU time since the last call. For its agent, at each look, and before its record says that
// it has drained.
void company_charge(struct gate *gate, uint64_t word, uint64_t now_ns);

// Whether this companion has to leave: it is ahead of its share, its cap is used up, or options have changed so that the
// company is larger than it or the holder allows, or the holder is of another class.
bool company_must_leave(const struct gate *gate, uint64_t word, uint64_t now_ns);

// A companion that the holder is two rounds ahead of and that should therefore hold the token; POOL_NO_INDEX if there is none.
uint32_t company_outrun(const struct gate *gate, uint64_t word, uint64_t now_ns);

// Closes this companion's gate, after which its processes drain (false: it was closed, or the company is over); and makes it
// leave once all have drained.
bool company_close(struct gate *gate, uint64_t word);
void company_leave(struct gate *gate, uint64_t word);

// For ending the grant of a holder that does not drain itself: it exits, is dead or late, or never came. Closes the gate of the
// grant that *word describes if it may have companions. Returns whether any of them still works; the last of these to drain
// then passes the token on.
bool company_detains(struct gate *gate, uint64_t *word);

// Makes the agents of all companions look, and wakes those of their threads that missed the invitation and sleep.
void company_ring(const struct gate *gate, uint64_t word);

#endif
