// SPDX-License-Identifier: AGPL-3.0-or-later
// The program's contexts: what each was charged, and whether the driver may still be asked about it.
//
// Invariants
//  - A context is in the table from its creation until its end. Before the driver is asked to destroy a context it is
//    `retired`: no thread may begin to use it any more, and all that had begun have finished. If the driver refuses, it is
//    revived.
//  - A record lives as long as it is in the table or `users` is not 0.
//  - A mark (an event of ours) belongs to the context it was created in and is dead once the context is retired: its event is
//    never touched again, since the context's end destroys it.
//  - A green context is in the table for its marks alone: streams and launches belong to it, everything else to the primary
//    context, whose end is its own, too (shim/green.h).
// Thread safe. No driver call is made under the mutex here, except those that return at once (queries of an event).
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
    const void *owner;    // see context_keep_earlier
    struct mark *next;    // in the list it is on
    struct mark *sibling; // in the list of all marks of the context
};

enum context_kind { CONTEXT_CREATED, CONTEXT_PRIMARY, CONTEXT_GREEN };

// Enters a context; `charged_bytes` were taken for it. Returns 0 or -ENOMEM.
int context_add(CUcontext handle, struct device *device, uint64_t charged_bytes, enum context_kind kind);

// Whether the table has the context and it is not a green one; *primary (may be NULL) says whether it is a primary one.
bool context_known(CUcontext handle, bool *primary);

// The context that grows with this one: for a green one the primary. NULL: unknown.
CUcontext context_grown(CUcontext handle);

// What makes a context grow, see shim/limits.c: its limits, and kernels whose frames are larger than its stack limit. Stack and
// frames are the same memory, of the larger of the two sizes.
enum context_limit { CONTEXT_STACK, CONTEXT_FRAMES, CONTEXT_HEAP, CONTEXT_LIMITS };
// The value that a limit had at the first call, before anything had changed it. The first call returns `now`.
size_t context_first_limit(CUcontext handle, enum context_limit limit, size_t now);
// A limit makes a context take `bytes` more than that first value did; negative: less. Returns how much more to charge the
// context than before: negative for less, 0 if the context is unknown.
int64_t context_grow(CUcontext handle, enum context_limit limit, int64_t bytes);
int64_t context_growth(CUcontext handle, enum context_limit limit);

// Adds to the count of cuCtxAttach. Returns how many attachments are left, including that of the creation; 0: unknown.
uint32_t context_attach(CUcontext handle, int delta);

// The primary context of a device, NULL if it is not in the table.
CUcontext context_primary(const struct device *device);

// Before the driver destroys a context: waits until it is unused and lets no thread use it any more. false: not in the table.
bool context_retire(CUcontext handle);
// Whether that has happened, and the context is still in the table.
bool context_retired(CUcontext handle);
// After the driver has refused to destroy it.
void context_revive(CUcontext handle);
// After the driver has destroyed it: returns what the context was charged.
void context_remove(CUcontext handle);

// A context that cannot be destroyed until it is released; NULL if it is unknown or retired.
struct context *context_use(CUcontext handle);
// Iterates over the contexts of a device that are not retired: returns the first, or the one after `previous`, and releases
// `previous`. The returned context is in use until it is released. NULL at the end.
struct context *context_use_next(const struct device *device, struct context *previous);
void context_release(struct context *context);
CUcontext context_handle(const struct context *context);
bool context_is_green(const struct context *context);
// The context whose work includes this one's: for a green one the primary, else itself.
CUcontext context_whole(const struct context *context);

// A mark of the context, to be recorded: a dropped one, else a new one (the context must be current). The caller has the
// context in use. NULL: out of memory, or a driver error.
struct mark *mark_take(struct context *context);
// Whether everything before the mark is complete. An error counts as complete.
bool mark_complete(struct mark *mark);
void mark_drop(struct mark *mark);

// Keeps a mark that stands behind work given to the context until now, for contexts_earlier_done. With `whole` it stands behind
// all work, and replaces the marks kept before. With an owner (not NULL), it replaces the mark that this owner kept before.
void context_keep_earlier(struct context *context, struct mark *mark, bool whole, const void *owner);
// Whether all kept marks of this device's contexts are complete; drops those that are.
bool contexts_earlier_done(const struct device *device);

// Forgets everything, for a forked child: the table, and the lock of the hooks in shim/context_hooks.c.
void contexts_reset(void);
void context_hooks_reset(void);

#endif
