// SPDX-License-Identifier: AGPL-3.0-or-later
// Launches: every call that gives kernels to the GPU passes the gate of its device.
//
// The way in and out has no lock, clock, environment or log, and no driver call but the launch. The gate tells streams apart by
// their handles; in the per-thread forms NULL means the thread's own stream.
//
// The window knows a launch by its function and grid size, a graph launch by its executable: one gate and one duration for the
// whole graph. Updating an executable changes its duration, as other arguments do a kernel's; the window learns it anew from
// the next launches. What a kernel or a graph launches from the device belongs to the launch it came with.
#include <stddef.h>
#include <stdlib.h>

#include "shim/graph_memory.h"
#include "shim/launch.h"
#include "shim/priorities.h"

// The device whose gate a kernel launch passes. Without a current context the driver takes the stream's (driver 580).
static inline struct device *kernel_device(CUstream stream)
{
    struct device *device = device_current();
    return __builtin_expect(device != NULL, 1) ? device : device_of_stream(stream);
}

// What the window knows a launch by, from the parameter names of the functions below.
#define GRID_KEY(f) window_key((f), grid_x, grid_y, grid_z)
#define CONFIG_KEY(f) (config ? window_key((f), config->gridDimX, config->gridDimY, config->gridDimZ) : (f))

// The value of the launch `call`, made between entering and leaving the gate of the device `where`. The window's key is made
// only if the window needs it.
#define GATED_ON(where, stream, function, call)                                                                                \
    (__extension__({                                                                                                           \
        CUresult gated_rc;                                                                                                     \
        struct device *gated_device = (where);                                                                                 \
        if (__builtin_expect(gated_device != NULL, 1)) {                                                                       \
            enum gate_pass gated_pass = launch_try(gated_device, (stream));                                                    \
            if (__builtin_expect(gated_pass == GATE_UNDECIDED, 0))                                                             \
                gated_pass = gate_enter_slow(&gated_device->gate, (stream), (function));                                       \
            gated_rc = (call);                                                                                                 \
            launch_leave(gated_device, gated_pass, (stream), gated_pass == GATE_OPEN ? NULL : (function));                     \
        } else {                                                                                                               \
            gated_rc = device_absent();                                                                                        \
            driver_layer_seen();                                                                                               \
        }                                                                                                                      \
        gated_rc;                                                                                                              \
    }))
#define GATED(stream, function, call) GATED_ON(kernel_device(stream), stream, function, call)

CUresult cuLaunchKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                        unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, CUstream stream, void **params,
                        void **extra)
{
    return GATED(stream, GRID_KEY(f),
                 REAL(cuLaunchKernel)(f, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, params,
                                      extra));
}

CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                             unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, CUstream stream,
                             void **params, void **extra)
{
    return GATED(own_stream(stream), GRID_KEY(f),
                 REAL(cuLaunchKernel_ptsz)(f, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, params,
                                           extra));
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    CUlaunchConfig copy;
    const CUlaunchConfig *allowed = priority_launch(config, &copy);
    CUresult rc = GATED(config ? config->hStream : NULL, CONFIG_KEY(f), REAL(cuLaunchKernelEx)(allowed, f, params, extra));
    if (allowed == &copy)
        free(copy.attrs);
    return rc;
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    CUlaunchConfig copy;
    const CUlaunchConfig *allowed = priority_launch(config, &copy);
    CUresult rc = GATED(own_stream(config ? config->hStream : NULL), CONFIG_KEY(f),
                        REAL(cuLaunchKernelEx_ptsz)(allowed, f, params, extra));
    if (allowed == &copy)
        free(copy.attrs);
    return rc;
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                                   unsigned int block_x, unsigned int block_y, unsigned int block_z, unsigned int shared_bytes,
                                   CUstream stream, void **params)
{
    return GATED(stream, GRID_KEY(f),
                 REAL(cuLaunchCooperativeKernel)(f, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream,
                                                 params));
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                                        unsigned int block_x, unsigned int block_y, unsigned int block_z,
                                        unsigned int shared_bytes, CUstream stream, void **params)
{
    return GATED(own_stream(stream), GRID_KEY(f),
                 REAL(cuLaunchCooperativeKernel_ptsz)(f, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes,
                                                      stream, params));
}

CUresult cuLaunch(CUfunction f)
{
    return GATED(NULL, f, REAL(cuLaunch)(f));
}

CUresult cuLaunchGrid(CUfunction f, int grid_width, int grid_height)
{
    return GATED(NULL, f, REAL(cuLaunchGrid)(f, grid_width, grid_height));
}

CUresult cuLaunchGridAsync(CUfunction f, int grid_width, int grid_height, CUstream stream)
{
    return GATED(stream, f, REAL(cuLaunchGridAsync)(f, grid_width, grid_height, stream));
}

void launch_group_add(struct launch_group *group, CUstream stream, const void *function)
{
    struct launch_partner partner = {.stream = stream, .function = function};
    partner.device = group->count < DEVICE_MAX ? device_of_stream(stream) : NULL;
    if (!partner.device)
        return;
    unsigned int place = group->count++;
    for (; place > 0 && group->partners[place - 1].device->holdings.gpu > partner.device->holdings.gpu; place--)
        group->partners[place] = group->partners[place - 1];
    group->partners[place] = partner;
}

void launch_group_enter(struct launch_group *group)
{
    for (unsigned int i = 0; i < group->count; i++) {
        struct launch_partner *partner = &group->partners[i];
        partner->pass = launch_enter(partner->device, partner->stream, partner->function);
    }
}

void launch_group_leave(const struct launch_group *group)
{
    for (unsigned int i = group->count; i-- > 0;) {
        const struct launch_partner *partner = &group->partners[i];
        launch_leave(partner->device, partner->pass, partner->stream, partner->function);
    }
}

CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launches, unsigned int count, unsigned int flags)
{
    struct launch_group group = {0};
    if (!device_attached())
        return device_absent();
    for (unsigned int i = 0; launches && count <= DEVICE_MAX && i < count; i++)
        launch_group_add(&group, launches[i].hStream, launches[i].function);
    launch_group_enter(&group);
    CUresult rc = REAL(cuLaunchCooperativeKernelMultiDevice)(launches, count, flags);
    launch_group_leave(&group);
    return rc;
}

static CUresult launch_graph(CUgraphExec graph, CUstream stream, CUstream given, CUresult (*real)(CUgraphExec, CUstream))
{
    struct graph_launch memory;
    CUresult rc = graph_memory_begin(&memory, graph, stream);
    if (__builtin_expect(rc != CUDA_SUCCESS, 0))
        return rc;
    return graph_memory_end(&memory, GATED_ON(device_behind(stream), stream, graph, real(graph, given)), stream);
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
    return launch_graph(graph, stream, stream, REAL(cuGraphLaunch));
}

CUresult cuGraphLaunch_ptsz(CUgraphExec graph, CUstream stream)
{
    return launch_graph(graph, own_stream(stream), stream, REAL(cuGraphLaunch_ptsz));
}
