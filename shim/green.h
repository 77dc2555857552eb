// SPDX-License-Identifier: AGPL-3.0-or-later
// Green contexts: a part of the multiprocessors, and everything else of the device's primary context, which lives as long as
// they do.
//
// Invariant: every green context holds one retain of the primary context, counted like the program's own, so the primary is
// charged while a green context lives and returns everything at its end. What is allocated while a green context is current is
// booked under its handle and, like the memory, outlives it; it is returned with the primary context. Thread safe. Lock order:
// that of the primary contexts (shim/context_hooks.c), then the mutex here, then all others.
#ifndef VGPU_SHIM_GREEN_H
#define VGPU_SHIM_GREEN_H

#include "shim/device.h"

// Before the driver is asked to end a device's primary context (true), and after it has refused to (false): see context_retire.
void green_retire_device(const struct device *device, bool retire);

// The primary context of a device is gone, and its green ones: returns what was booked under their handles.
void green_drop_device(const struct device *device);

// Forgets everything, for a forked child.
void green_reset(void);

#endif
