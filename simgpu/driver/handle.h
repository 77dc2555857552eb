// The registry of live handles. A handle is the address of its object; the registry says whether an address that a program
// passes in is a live object of the right kind, without reading through it. All calls need the API lock.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_HANDLE_H
#define SIMGPU_DRIVER_HANDLE_H

#include <stdbool.h>

enum handle_kind {
    HANDLE_NONE,
    HANDLE_CONTEXT,
    HANDLE_STREAM,
    HANDLE_EVENT,
    HANDLE_MODULE,
    HANDLE_FUNCTION,
    HANDLE_LIBRARY,
    HANDLE_KERNEL,
    HANDLE_POOL,
    HANDLE_PHYSICAL, // cuMemCreate
    HANDLE_ARRAY,
    HANDLE_MIPMAPPED_ARRAY,
    HANDLE_LEVEL, // an array that is a level of a mipmapped one
    HANDLE_GREEN,
    HANDLE_EXTERNAL,
    HANDLE_GRAPH,
    HANDLE_NODE,
    HANDLE_EXEC,
};

// False when memory is short; then the handle is not registered.
bool handle_add(const void *object, enum handle_kind kind);
void handle_remove(const void *object);
bool handle_is(const void *object, enum handle_kind kind);

#endif
