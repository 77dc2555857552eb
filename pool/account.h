// SPDX-License-Identifier: AGPL-3.0-or-later
// A counter in shared memory that many processes change without a lock and that stays exact when any of them is killed between
// any two instructions.
//
// The account word holds (count, writer, sequence): its value, and which operation of which process made it. A process keeps, in its
// own member record: `intent` (the operation it is about to do), `holding` (what it holds, with the sequence of its last finished
// operation) and `acknowledged`. Whoever replaces another's account word first acknowledges that other's operation in its record.
// So after a death it can always be told whether the unfinished operation took effect: it did if the word still names it or
// if it was acknowledged. The scheme is the recoverable compare-and-swap of Attiya, Ben-Baruch and Hendler, "Nesting-Safe Recoverable
// Linearizability" (PODC 2018), reduced to one counter.
//
// Invariants
//  - count == sum of `holding` over all records, but for operations in progress.
//  - One operation at a time per record: the owner serialises its threads; after its death the reaper does, under the pool lock.
//  - count never exceeds the limit given with the operation, and never goes below zero.
#ifndef VGPU_POOL_ACCOUNT_H
#define VGPU_POOL_ACCOUNT_H

#include <stdbool.h>

#include "pool/layout.h"

#define ACCOUNT_MAX_COUNT UINT32_MAX

// Where an operation happens: which word, and which process's record on which GPU.
struct account_ref {
    struct pool_layout *layout;
    _Atomic uint64_t *word;
    uint32_t process;
    uint32_t gpu;
};

// Adds `delta` to the account in the name of the process. A positive delta fails with -ENOMEM where the count would pass `limit`;
// a negative one fails with -EINVAL where the process holds less. Returns 0 when done. Lock-free. Serialise per record.
int account_add(const struct account_ref *ref, int64_t delta, uint64_t limit);

// Starts a record anew for a process that holds nothing, whatever a damaged pool says. Its sequence goes on. Before the process is a member.
void account_begin(struct pool_member *member);

// An account without holders, empty, for new members on GPU `gpu` where those before were on GPU `before`.
void account_clear(_Atomic uint64_t *word, uint32_t before, uint32_t gpu);

// Finishes what a dead process left undone: afterwards its `holding` says exactly what it has in the account. Under the pool lock.
void account_recover(const struct account_ref *ref);

uint64_t account_count(const _Atomic uint64_t *word);
uint64_t account_holding(const struct pool_member *member);

#endif
