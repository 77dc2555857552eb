// SPDX-License-Identifier: AGPL-3.0-or-later
// Physical memory of the devices, accounted across processes without a lock: announce first, then add up.
//
// A reservation is first announced in the owner's slot and only then compared with what everybody holds and has announced. Of
// two that run at once at least one sees the other, so the capacity is never exceeded, and a process that dies or stops in the
// middle leaves nothing behind that its slot does not tell.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <errno.h>
#include <time.h>

#include "simgpu/state/state.h"

// An announcement is settled within microseconds. One that stays this many rounds belongs to a stopped process and counts as
// use.
#define SETTLE_ROUNDS 200

static void sum(uint32_t device, uint64_t *committed, uint64_t *tentative)
{
    struct state_file *file = state_file();

    *committed = *tentative = 0;
    for (uint32_t i = 0; i < STATE_MAX_SLOTS; i++) {
        struct state_slot *slot = &file->slot[i];
        if (!atomic_load(&slot->live))
            continue;
        // Tentative before committed: an amount that moves from one to the other meanwhile is then seen at least once.
        *tentative += atomic_load(&slot->device[device].tentative_bytes);
        *committed += atomic_load(&slot->device[device].committed_bytes);
    }
}

static bool try_reserve(uint32_t device, uint64_t bytes, bool *conflict)
{
    struct state_file *file = state_file();
    struct state_slot_device *own = &file->slot[state_slot_index()].device[device];
    uint64_t committed, tentative;

    atomic_fetch_add(&own->tentative_bytes, bytes);
    sum(device, &committed, &tentative);
    bool fits = committed + tentative <= file->capacity_bytes;
    if (fits)
        atomic_fetch_add(&own->committed_bytes, bytes);
    atomic_fetch_sub(&own->tentative_bytes, bytes);
    *conflict = !fits && committed + bytes <= file->capacity_bytes;
    return fits;
}

int state_reserve(uint32_t device, uint64_t bytes)
{
    bool conflict, swept = false;

    // Larger than any sum may become, so that nothing below can overflow.
    if (bytes > state_file()->capacity_bytes)
        return -ENOMEM;
    for (unsigned round = 0; round < SETTLE_ROUNDS; round++) {
        if (try_reserve(device, bytes, &conflict))
            return 0;
        if (conflict) {
            struct timespec pause = {.tv_nsec = 20000};
            nanosleep(&pause, NULL);
        } else if (!swept) {
            state_sweep();
            swept = true;
        } else {
            return -ENOMEM;
        }
    }
    return -ENOMEM;
}

void state_release(uint32_t device, uint64_t bytes)
{
    atomic_fetch_sub(&state_file()->slot[state_slot_index()].device[device].committed_bytes, bytes);
}

uint64_t state_used(uint32_t device)
{
    uint64_t committed, tentative;

    sum(device, &committed, &tentative);
    return committed;
}
