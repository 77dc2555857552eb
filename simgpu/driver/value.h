// Operations on single values in memory: a stream writes one, or waits for one. Needs the API lock.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_VALUE_H
#define SIMGPU_DRIVER_VALUE_H

#include "simgpu/driver/stream.h"

// Describes one member of a batch. Barriers and flushes become OP_NOTHING: operations are strictly ordered as it is.
CUresult value_describe(const CUstreamBatchMemOpParams *params, struct op *op);

// True if the value that an OP_WAIT_VALUE waits for is there.
bool value_reached(const struct op *op);

#endif
