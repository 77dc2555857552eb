// SPDX-License-Identifier: AGPL-3.0-or-later
// The token: the right to launch on one physical GPU. One 64-bit word per GPU in the pool says who has it.
//
//   bits 0-23   generation: one more with every grant
//   bit  24     CONTENDED: somebody waits, or has waited a moment ago: launches go through the window
//   bit  25     REVOKED: the gate is closed, the holder drains
//   bits 32-63  holder: index of the virtual GPU plus one, 0 for nobody
//
// Invariants
//  - Every change is one compare-and-swap, and every change alters the low half, which is also the futex word.
//  - A launch is allowed while the word names the launcher's virtual GPU and REVOKED is clear. A process that has seen a word
//    without flags may compare the whole word with what it saw: equality proves that it still holds the token.
//  - Every move of the token raises the generation, so an old holder that was stopped finds a word that is not its own.
#ifndef VGPU_SCHEDULER_TOKEN_H
#define VGPU_SCHEDULER_TOKEN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/futex.h"
#include "pool/layout.h"

#define TOKEN_GENERATION_MASK 0xffffffu
#define TOKEN_CONTENDED (1ull << 24)
#define TOKEN_REVOKED (1ull << 25)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of the token word comes first in memory");

static inline uint32_t token_generation(uint64_t word)
{
    return (uint32_t)word & TOKEN_GENERATION_MASK;
}

// The index of the holding virtual GPU, or POOL_NO_INDEX.
static inline uint32_t token_holder(uint64_t word)
{
    uint32_t holder = (uint32_t)(word >> 32) - 1;
    return holder < POOL_MAX_VGPUS ? holder : POOL_NO_INDEX;
}

// The grant that a word describes: holder and generation.
static inline uint64_t token_without_flags(uint64_t word)
{
    return word & ~(TOKEN_CONTENDED | TOKEN_REVOKED);
}

// The word that follows `word` when the token goes to `vgpu` (POOL_NO_INDEX: to nobody).
static inline uint64_t token_next(uint64_t word, uint32_t vgpu, uint64_t flags)
{
    uint32_t generation = (token_generation(word) + 1) & TOKEN_GENERATION_MASK;
    return (uint64_t)(vgpu + 1) << 32 | flags | generation;
}

static inline _Atomic uint32_t *token_futex(struct pool_gpu *gpu)
{
    return (_Atomic uint32_t *)&gpu->token;
}

// The waiters of a virtual GPU share one of 32 futex bits, so that a grant wakes few others.
static inline uint32_t token_futex_bit(uint32_t vgpu)
{
    return 1u << (vgpu % 32);
}

#endif
