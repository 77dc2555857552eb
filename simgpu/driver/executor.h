// SPDX-License-Identifier: AGPL-3.0-or-later
// The thread of a device that runs the operations of all its streams, and the thread that runs host functions.
//
// The executor takes ready heads of streams one at a time, by priority, then by age. Kernels need the engine; everything else
// runs without it. Host functions go to a thread of their own, so that one that blocks does not hold up the device.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_EXECUTOR_H
#define SIMGPU_DRIVER_EXECUTOR_H

#include "simgpu/driver/device.h"

// Starts the threads of a device if they do not run yet. With the lock held.
CUresult executor_start(struct device *device);

// Tells the executor that some head may have become ready. With the lock held.
void executor_wake(struct device *device);

#endif
