// SPDX-License-Identifier: AGPL-3.0-or-later
// What modules and libraries take: code, constants and global variables.
//
// The driver does not say how much that is: images are packed, compiled when loaded, and loaded lazily. So a load is measured,
// and a large one twice (see modules.c). A lazy driver leaves two things for later. The code of a kernel is loaded when the
// program asks for the function, or at the first launch of a kernel of a library; so a request for one loads it at once, which
// is measured too. And when the program asks for a variable, its size is known: from then on the module is charged the known
// variables, if that is more. Everything is charged to the context that was current, until the module is unloaded or the
// context ends.
//
// A module that does not fit is unloaded again and refused, so while it is being loaded a quota may be exceeded by its size. A
// function or a variable that does not fit is not given out; code that is loaded nevertheless is charged with the next that is
// asked for. Not seen: code of kernels that are only enumerated, or first launched in another context than the one in which
// they were asked for; and variables that are loaded with code and that the program never asks for.
//
// Thread safe. Lock order: measurement, then the mutex here, then holdings.
#ifndef VGPU_SHIM_MODULES_H
#define VGPU_SHIM_MODULES_H

#include "base/clock.h"
#include "shim/hooks.h"
#include "shim/measure.h"

// The longest wait of a program that loads a module, and of one that asks for a function, perhaps at its first launch.
#define MODULE_LOAD_PATIENCE_NS (10 * NS_PER_S)
#define MODULE_LOOK_UP_PATIENCE_NS (250 * NS_PER_MS)

// A call in progress that may load code.
struct module_load {
    struct device *device; // NULL: no context is current, nothing is loaded yet
    CUcontext context;
    struct measurement measurement;
};

// Waits at most patience_ns for another load to end, which may be compiling. If it has not ended by then, both are measured at
// once, and what is charged for one may be charged for the other too, until that is unloaded.
void module_load_begin(struct module_load *load, uint64_t patience_ns);

// Charges the module or library `handle` for the code loaded since module_load_begin; NULL: none. CUDA_SUCCESS, or
// CUDA_ERROR_OUT_OF_MEMORY if it does not fit, which is logged as a refusal of `function`.
CUresult module_load_end(struct module_load *load, const void *handle, const char *function);

// Returns what a context that has ended was charged for modules.
void modules_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void modules_reset(void);

#endif
