// SPDX-License-Identifier: AGPL-3.0-or-later
// Launches, singly or a section at a time, through the instance's gate.
#include <dlfcn.h>
#include <string.h>

#include "lib/instance.h"

__thread struct section section_of_thread;

void section_begin(struct vgpu *vgpu, const void *function)
{
    driver_exempt(true);
    atomic_fetch_add(&vgpu->streams.turns, 1);
    enum gate_pass pass = gate_enter(&vgpu->gate, streams_own(&vgpu->streams), function);
    section_of_thread = (struct section){.vgpu = vgpu, .pass = pass, .function = function};
}

void section_end(void)
{
    struct section section = section_of_thread;
    section_of_thread.vgpu = NULL;
    gate_leave(&section.vgpu->gate, section.pass, streams_own(&section.vgpu->streams), section.function);
    streams_touch(&section.vgpu->streams);
    atomic_fetch_sub(&section.vgpu->streams.turns, 1);
    driver_exempt(false);
}

static int refuse_nesting(void)
{
    return fail(-EDEADLK, "this thread is in a turn of another virtual GPU: both cannot have the GPU at once");
}

VGPU_API int vgpu_enter(struct vgpu *vgpu)
{
    if (section_of_thread.vgpu && section_of_thread.vgpu != vgpu)
        return refuse_nesting();
    if (section_of_thread.vgpu) {
        section_of_thread.depth++;
        return 0;
    }
    CALL call = call_begin_current(vgpu);
    if (call.rc)
        return call.rc;
    atomic_fetch_add(&vgpu->calls, 1); // until vgpu_leave: no destruction in between
    section_begin(vgpu, vgpu);         // all sections of an instance are one to the window
    section_of_thread.depth = 1;
    return 0;
}

VGPU_API int vgpu_leave(struct vgpu *vgpu)
{
    ENTRY;
    if (!vgpu || section_of_thread.vgpu != vgpu || section_of_thread.depth == 0)
        return fail(-EINVAL, "this thread has not entered a turn of this virtual GPU");
    if (--section_of_thread.depth || section_of_thread.task)
        return 0;
    CUcontext context = vgpu->gpu->context;
    REAL(cuCtxPushCurrent_v2)(context);
    section_end();
    REAL(cuCtxPopCurrent_v2)(&context);
    atomic_fetch_sub_explicit(&vgpu->calls, 1, memory_order_release);
    return 0;
}

// The kernel that the CUDA runtime calls by the address of a host function. Only the runtime that registered it knows.
static int find_kernel(const void *host_function, CUfunction *function)
{
    int (*by_symbol)(CUfunction *, const void *) = (__typeof__(by_symbol))dlsym(RTLD_DEFAULT, "cudaGetFuncBySymbol");
    if (!by_symbol)
        return fail(-ENOTSUP, "host_function needs the shared CUDA runtime; else get `function` from cudaGetFuncBySymbol");
    int rc = by_symbol(function, host_function);
    return rc ? fail(-EINVAL, "the CUDA runtime has no kernel host_function %p (cudaGetFuncBySymbol: %d)", host_function, rc)
              : 0;
}

static int read_launch(const struct vgpu_launch_config *from, struct vgpu_launch_config *launch)
{
    *launch = (struct vgpu_launch_config){0};
    if (!from || from->size < sizeof *launch || from->size > API_STRUCT_MOST)
        return fail(-EINVAL, "the launch is %s: begin with VGPU_LAUNCH_INIT", from ? "without a size" : "NULL");
    memcpy(launch, from, sizeof *launch);
    for (size_t i = sizeof *launch; i < from->size; i++)
        if (((const unsigned char *)from)[i])
            return fail(-ENOTSUP, "the launch sets something that this version of the library does not know");
    if (!launch->function == !launch->host_function)
        return fail(-EINVAL, "a launch needs either function or host_function");
    return 0;
}

static CUresult run(struct vgpu *vgpu, const struct vgpu_launch_config *launch, CUfunction function)
{
    CUresult result =
        REAL(cuLaunchKernel)(function, launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0], launch->block[1],
                             launch->block[2], launch->shared_bytes, launch->stream, launch->args, NULL);
    streams_touch(&vgpu->streams);
    return result;
}

VGPU_API int vgpu_launch(struct vgpu *vgpu, const struct vgpu_launch_config *given)
{
    struct vgpu_launch_config launch;
    bool inside = section_of_thread.vgpu != NULL;
    if (inside && section_of_thread.vgpu != vgpu)
        return refuse_nesting();
    CALL call = call_begin_current(vgpu);
    int rc = call.rc ? call.rc : read_launch(given, &launch);
    if (rc == 0)
        rc = instance_stream(vgpu, &launch.stream);
    if (rc)
        return rc;
    CUfunction function = launch.function;
    if (!function && (rc = find_kernel(launch.host_function, &function)) != 0)
        return rc;
    if (inside)
        return fail_driver(run(vgpu, &launch, function), "cuLaunchKernel");
    const void *key = window_key(function, launch.grid[0], launch.grid[1], launch.grid[2]);
    enum gate_pass pass = gate_enter(&vgpu->gate, launch.stream, key);
    CUresult result = run(vgpu, &launch, function);
    gate_leave(&vgpu->gate, pass, launch.stream, key);
    return fail_driver(result, "cuLaunchKernel");
}
