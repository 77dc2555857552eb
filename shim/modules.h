// SPDX-License-Identifier: AGPL-3.0-or-later
// What modules and libraries take: code, constants and global variables.
//
// The driver does not say how much that is: its images are packed, compiled when loaded, and loaded lazily. So it is measured, where
// the driver loads: at cuModuleLoad* and cuLibraryLoad*, and at the first question for a global variable or the module of a
// library, which makes a lazy driver load its data. What is measured is charged in whole blocks, to the context that was current,
// until the module is unloaded or the context ends.
//
// A module that does not fit is unloaded again and refused, so that for the time of its loading a quota may be exceeded by its size.
// Data that a lazy driver loads later and that do not fit cannot be unloaded; the question for them is refused until they do.
// Not seen: code that a lazy driver loads at a kernel's first launch.
//
// Thread safe. Lock order: measurement, then the mutex here, then holdings.
#ifndef VGPU_SHIM_MODULES_H
#define VGPU_SHIM_MODULES_H

#include "shim/hooks.h"

// Returns what a context that has ended was charged for modules.
void modules_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void modules_reset(void);

#endif
