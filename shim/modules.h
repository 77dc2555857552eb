// SPDX-License-Identifier: AGPL-3.0-or-later
// What modules and libraries take: code, constants and global variables.
//
// The driver does not say how much that is: its images are packed, compiled when loaded, and loaded lazily. So a load is measured, and
// a large one twice (see modules.c). What a lazy driver leaves for later comes in two ways. The code of a kernel is loaded when the program asks
// for the function, or at the first launch of a kernel of a library; so whoever asks for one is made to load it at once, which is measured too.
// And when the program asks for a variable, its size is known: from then on the module is charged the variables known, if that is more. All
// is charged to the context that was current, until the module is unloaded or the context ends.
//
// A module that does not fit is unloaded again and refused, so that for the time of its loading a quota may be exceeded by its size; a
// function or a variable that does not fit is not given out, and code that is there nevertheless is charged with the next that is asked for.
// A function whose code is charged is known from then on, and asking for it again measures nothing: what others take from the GPU at that
// moment would be charged each time, to a program that looks its functions up before every launch without end.
// Not seen: code of kernels that are only enumerated, or first launched in another context than that in which they were asked for; and
// variables that are loaded with code and that the program never asks for.
//
// Thread safe. Lock order: measurement, then the mutex here, then holdings.
#ifndef VGPU_SHIM_MODULES_H
#define VGPU_SHIM_MODULES_H

#include "shim/measure.h"

// A question for a function, on its way: the driver may load its code.
struct module_question {
    const void *owner; // the module or library that is charged
    const void *key;   // what the owner knows the function by
    size_t key_bytes;
    CUcontext context;
    struct device *device; // NULL: nothing is measured
    struct measurement measurement;
};

// Asks for a function of a module, which is known by its name, or of a library, by its kernel; NULL: of nothing that could be charged.
// Both names must stay until the end. Waits a quarter of a second at most for another loading, which may be compiling, since the program may be
// at its first launch: without that both are measured at once, and what is charged for one may be charged for the other too, until that is
// unloaded.
void module_question_begin(struct module_question *question, const void *owner, const void *key, size_t key_bytes);

// After the driver has answered with `result`: charges the owner the code that was loaded. Returns `result`, or CUDA_ERROR_OUT_OF_MEMORY
// where it does not fit, which `function` then says.
CUresult module_question_end(struct module_question *question, CUresult result, const char *function);

// The program has, or can ask for, the module that a library has in the current context: what is asked of that goes back with the library.
void module_of_library(CUmodule module, CUlibrary library);

// Returns what a context that has ended was charged for modules.
void modules_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void modules_reset(void);

#endif
