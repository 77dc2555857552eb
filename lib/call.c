// SPDX-License-Identifier: AGPL-3.0-or-later
// How a call into an instance begins and ends, and what arguments it may have.
#include <stdlib.h>

#include "lib/instance.h"
#include "options/options.h"
#include "shim/stream_table.h"

int instance_refuse(const struct vgpu *vgpu)
{
    if (!vgpu)
        return fail(-EINVAL, "the virtual GPU is NULL");
    if (vgpu->generation != atomic_load_explicit(&home_generation, memory_order_relaxed))
        return fail(-ECHILD, "the virtual GPU was made by the parent of this process, and is not inherited");
    return fail(-ESHUTDOWN, "the virtual GPU is being destroyed");
}

struct call call_begin(struct vgpu *vgpu)
{
    struct entry entry = entry_begin();
    int rc = instance_enter(vgpu);
    return (struct call){.entry = entry, .rc = rc, .vgpu = rc ? NULL : vgpu};
}

struct call call_begin_current(struct vgpu *vgpu)
{
    CUcontext current = NULL;
    struct call call = call_begin(vgpu);
    if (call.rc)
        return call;
    if (REAL(cuCtxGetCurrent)(&current) != CUDA_SUCCESS || current != vgpu->gpu->context) {
        call.rc = fail_driver(REAL(cuCtxPushCurrent_v2)(vgpu->gpu->context), "cuCtxPushCurrent");
        call.pushed = call.rc == 0;
    }
    call.current = call.rc == 0;
    if (call.current)
        call.mode = capture_relax();
    return call;
}

void call_end(const struct call *call)
{
    if (call->current)
        capture_restore(call->mode);
    if (call->pushed)
        REAL(cuCtxPopCurrent_v2)(&(CUcontext){NULL});
    if (call->vgpu)
        instance_leave(call->vgpu);
    entry_end(&call->entry);
}

int instance_refuse_stream(vgpu_stream stream)
{
    return fail(-EINVAL, "the stream %p is not one of this virtual GPU's", (void *)stream);
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
