// SPDX-License-Identifier: AGPL-3.0-or-later
// How a call into an instance begins and ends, and what its arguments may be.
#include <stdlib.h>

#include "lib/instance.h"
#include "options/options.h"

static inline struct call count_in(struct vgpu *vgpu, struct entry entry)
{
    if (!vgpu)
        return (struct call){entry, fail(-EINVAL, "the virtual GPU is NULL"), NULL, false};
    if (vgpu->generation != atomic_load_explicit(&home_generation, memory_order_relaxed))
        return (struct call){entry,
                             fail(-ECHILD, "the virtual GPU was made by the parent of this process, and is not inherited"),
                             NULL, false};
    // Pairs with close_for_calls in lib/instance.c: counted in before the flag is read.
    atomic_fetch_add(&vgpu->calls, 1);
    int rc = atomic_load(&vgpu->closing) ? fail(-ESHUTDOWN, "the virtual GPU is being destroyed") : 0;
    return (struct call){entry, rc, vgpu, false};
}

struct call call_begin(struct vgpu *vgpu)
{
    return count_in(vgpu, entry_begin());
}

struct call call_begin_quick(struct vgpu *vgpu)
{
    return count_in(vgpu, (struct entry){errno, ENTRY_CANCELLABLE});
}

struct call call_begin_current(struct vgpu *vgpu)
{
    CUcontext current = NULL;
    struct call call = call_begin(vgpu);
    if (call.rc || (REAL(cuCtxGetCurrent)(&current) == CUDA_SUCCESS && current == vgpu->gpu->context))
        return call;
    call.rc = fail_driver(REAL(cuCtxPushCurrent_v2)(vgpu->gpu->context), "cuCtxPushCurrent");
    call.pushed = call.rc == 0;
    return call;
}

void call_end(const struct call *call)
{
    if (call->pushed)
        REAL(cuCtxPopCurrent_v2)(&(CUcontext){NULL});
    if (call->vgpu)
        atomic_fetch_sub_explicit(&call->vgpu->calls, 1, memory_order_release);
    entry_end(&call->entry);
}

int instance_stream(struct vgpu *vgpu, vgpu_stream *stream)
{
    CUstream found = streams_find(&vgpu->streams, *stream);
    if (!found)
        return fail(-EINVAL, "the stream %p is none of this virtual GPU's", (void *)*stream);
    *stream = found;
    return 0;
}

int instance_check_name(const char *name)
{
    struct error ignored;
    struct options *options = malloc(sizeof *options);
    if (!options)
        return fail(-ENOMEM, "out of memory");
    options_defaults(options);
    int rc = name ? options_parse(options, OPTION_NAME, name, &ignored) : -EINVAL;
    free(options);
    return rc ? fail(-EINVAL, "name \"%.60s\": allowed is %s", name ? name : "", option_table[OPTION_NAME].allowed) : 0;
}
