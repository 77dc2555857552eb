// SPDX-License-Identifier: AGPL-3.0-or-later
// What modules and libraries take: code, constants and global variables.
//
// The driver does not say how much that is: its images are packed, compiled when loaded, and loaded lazily. So a load is measured, and
// a large one twice (see modules.c). What a lazy driver leaves for later is known when the program asks for a variable: from
// then on the module is charged the variables known, if that is more. It is charged to the context that was current, until the module
// is unloaded or the context ends.
//
// A module that does not fit is unloaded again and refused, so that for the time of its loading a quota may be exceeded by its size; a
// variable that does not fit is not given out. Not seen: code and variables that a lazy driver loads at a kernel's first launch and
// that the program never asks for.
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
