// SPDX-License-Identifier: AGPL-3.0-or-later
// A counter in shared memory that many processes change without a lock and that stays exact even if any of them is killed
// between any two instructions.
//
// The account word holds (count, writer, sequence): its value, and which operation of which process made it. A process keeps in
// its own member record: `intent` (the operation it is about to do), `holding` (what it holds, with the sequence of its last
// finished operation) and `acknowledged`. A process that replaces another's account word first acknowledges the other's
// operation in that other's record. So after a death it is always known whether the unfinished operation took effect: it did if
// the word still names it or if it was acknowledged. The scheme is the recoverable compare-and-swap of Attiya, Ben-Baruch and
// Hendler, "Nesting-Safe Recoverable Linearizability" (PODC 2018), reduced to one counter.
//
// Invariants
//  - count == sum of `holding` over all records, except for operations in progress.
//  - One operation at a time per record: the owner serialises its threads; after its death the reaper does, under the pool
//    lock.
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

// Adds `delta` to the account on behalf of the process. A positive delta fails with -ENOMEM if the count would exceed `limit`,
// a negative one with -EINVAL if the process holds less. Returns 0 on success. Lock-free. Serialise per record.
int account_add(const struct account_ref *ref, int64_t delta, uint64_t limit);

// Resets the record of a process that holds nothing, whatever a damaged pool says. Its sequence continues. Call before the
// process is a member.
void account_begin(struct pool_member *member);

// Empties an account without holders, for new members on GPU `gpu`; the previous ones were on GPU `before`.
void account_clear(_Atomic uint64_t *word, uint32_t before, uint32_t gpu);

// Finishes what a dead process left undone: afterwards its `holding` is exactly what it has in the account. Under the pool
// lock.
void account_recover(const struct account_ref *ref);

uint64_t account_count(const _Atomic uint64_t *word);
uint64_t account_holding(const struct pool_member *member);

#endif
