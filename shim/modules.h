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
// asked for. A function whose code is charged is remembered, and asking for it again measures nothing: a program that looks its
// functions up before every launch would otherwise be charged again and again for what others take at that moment.
// Not seen: code of kernels that are only enumerated, or first launched in another context than the one in which they were
// asked for; and variables that are loaded with code and that the program never asks for.
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

// Begins a question for a function: `key` is its name in a module, or the kernel in a library; an owner of NULL is nothing that
// could be charged. Owner and key must stay valid until the end. Waits at most a quarter of a second for another loading, which
// may be compiling, since the program may be at its first launch. After that both are measured at once, and what is charged for
// one may be charged for the other too, until that is unloaded.
void module_question_begin(struct module_question *question, const void *owner, const void *key, size_t key_bytes);

// After the driver has answered with `result`: charges the owner for the code that was loaded. Returns `result`, or
// CUDA_ERROR_OUT_OF_MEMORY if it does not fit, with a message that names `function`.
CUresult module_question_end(struct module_question *question, CUresult result, const char *function);

// The program has learned the module that a library has in the current context: what is charged to the module is given back with
// the library.
void module_of_library(CUmodule module, CUlibrary library);

// Returns what a context that has ended was charged for modules.
void modules_drop_context(CUcontext context);

// Forgets everything, for a forked child.
void modules_reset(void);

#endif
