// SPDX-License-Identifier: AGPL-3.0-or-later
// The contexts that the program has: what each was charged, and whether the driver may still be asked about it.
//
// Invariants
//  - A context is in the table from its creation until its end. `retired` comes first: before the driver is asked to destroy a
//    context, nobody may begin to use it any more, and whoever had begun has finished. Where the driver refuses, it is revived.
//  - A record lives as long as it is in the table or `users` is not 0.
//  - A mark (an event of ours) belongs to the context it was created in and is dead once that is retired: its event is then never
//    touched again, since the context's end destroys it.
//  - A green context is in the table for its marks alone: streams and launches belong to it, everything else to the primary context,
//    whose end is its own, too (shim/green.h).
// Thread safe. The mutex here is held over no driver call but those that return at once (queries of an event).
// Lock order: streams, then contexts, then allocations.
#ifndef VGPU_SHIM_CONTEXT_TABLE_H
#define VGPU_SHIM_CONTEXT_TABLE_H

#include "shim/device.h"

struct context;

// A mark stands behind work that was given to the GPU: an untimed event. Used by shim/gpu_ops.c only.
struct mark {
    CUevent event;
    struct context *context;
    bool dead;            // the context is gone, and the event with it
    const void *owner;    // whose mark it is, see context_keep_earlier
    struct mark *next;    // in the list it is on
    struct mark *sibling; // in the list of all marks of the context
};

enum context_kind { CONTEXT_CREATED, CONTEXT_PRIMARY, CONTEXT_GREEN };

// Enters a context; `charged_bytes` were taken for it. Returns 0 or -ENOMEM.
int context_add(CUcontext handle, struct device *device, uint64_t charged_bytes, enum context_kind kind);

// Whether the table has the context, and it is no green one; *primary (may be NULL) says whether it is a primary one.
bool context_known(CUcontext handle, bool *primary);

// What makes a context grow, see shim/limits.c: its limits, and kernels whose frames are larger than its stack limit. The stack and the
// frames are the same memory, as large as the larger one needs.
enum context_limit { CONTEXT_STACK, CONTEXT_FRAMES, CONTEXT_HEAP, CONTEXT_LIMITS };
// The value of a limit when this was first asked, before anything had changed it: `now`, where that is now.
size_t context_first_limit(CUcontext handle, enum context_limit limit, size_t now);
// A limit makes a context take `bytes` more than that first value did; negative: less. Returns by how much more than before the context
// is to be charged: negative where less, 0 where it is unknown.
int64_t context_grow(CUcontext handle, enum context_limit limit, int64_t bytes);
int64_t context_growth(CUcontext handle, enum context_limit limit);

// One more, or one less, of what cuCtxAttach counts. Returns how many are left, the one of its creation included; 0: unknown.
uint32_t context_attach(CUcontext handle, int delta);

// The primary context of a device, NULL if it is not in the table.
CUcontext context_primary(const struct device *device);

// Before the driver destroys a context: waits until nobody uses it and lets nobody use it any more. false: not in the table.
bool context_retire(CUcontext handle);
// Whether that has happened, and the context is still in the table.
bool context_retired(CUcontext handle);
// After the driver has refused to.
void context_revive(CUcontext handle);
// After it has: returns what the context was charged.
void context_remove(CUcontext handle);

// A context that cannot be destroyed until it is released; NULL where it is unknown or retired.
struct context *context_use(CUcontext handle);
// The first context of a device in use by nobody's destruction, or the one after `previous`, which is released; NULL at the end.
struct context *context_use_next(const struct device *device, struct context *previous);
void context_release(struct context *context);
CUcontext context_handle(const struct context *context);
bool context_is_green(const struct context *context);
// The context whose work is everything beside this one's: for a green one the primary, else itself.
CUcontext context_whole(const struct context *context);

// A mark of the context for recording: one that was dropped before, else a new one (the context must be current). The caller uses the
// context. NULL: out of memory, or the driver's error.
struct mark *mark_take(struct context *context);
// Whether everything before the mark is complete. An error counts as complete.
bool mark_complete(struct mark *mark);
void mark_drop(struct mark *mark);

// Keeps a mark that stands behind work given to the context until now, to be asked by contexts_earlier_done. `whole`: behind all work,
// so that the marks kept before are not needed any more. With an owner (not NULL), the one that this owner kept before is not.
void context_keep_earlier(struct context *context, struct mark *mark, bool whole, const void *owner);
// Whether the work behind all kept marks of this device's contexts is complete; drops those that are.
bool contexts_earlier_done(const struct device *device);

// Forgets everything, for a forked child: the table, and the lock of the hooks in shim/context_hooks.c.
void contexts_reset(void);
void context_hooks_reset(void);

#endif
