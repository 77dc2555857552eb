// SPDX-License-Identifier: AGPL-3.0-or-later
// The effect of a driver call on the GPU's free memory, for what the driver takes without saying how much: modules, and small
// arrays, which it packs into blocks that it has.
//
// The figure is the driver's for the whole GPU, so others change it too. What members of the pool took or gave back meanwhile
// is in the ledger and is deducted; the figure is certain only if there was nothing to deduct. Programs outside the pool cannot
// be told apart.
//
// A measurement holds a lock from begin to leave, that is until the ledger has been changed for it. Otherwise a second one could
// begin when memory is taken but not charged, and would deduct the charge from its own result. It is the outermost lock: pools,
// contexts and holdings may be locked under it, and nothing that is called with one of those held measures. The driver's call
// in between may wait for work that waits for another thread of the program, so no thread waits for the lock forever: without
// it, nothing is certain.
#ifndef VGPU_SHIM_MEASURE_H
#define VGPU_SHIM_MEASURE_H

#include "shim/device.h"

struct measurement {
    struct device *device;
    uint64_t free_bytes; // before
    uint64_t held_bytes; // by the members of the pool
    uint64_t stamp;
    bool known, locked;
    int cancel; // the thread is not cancelled until it leaves
};

// Before the call, with a context of the device current. Waits at most patience_ns for another measurement to end.
void measure_begin(struct measurement *measurement, struct device *device, uint64_t patience_ns);

// Begins anew without giving the lock up: what the call took was given back, and the call is made again.
void measure_again(struct measurement *measurement);

// After the call, before the ledger is changed for it. *lost_bytes is how much less is free, negative if more is; 0 if the
// driver does not say. Returns whether that is certain.
bool measure_end(const struct measurement *measurement, int64_t *lost_bytes);

// Once the ledger has been changed.
void measure_leave(const struct measurement *measurement);

// For a forked child.
void measure_reset(void);

#endif
