// SPDX-License-Identifier: AGPL-3.0-or-later
// What the programs that test the C API share: driver.h's way of failing, and kernels to launch.
#ifndef API_H
#define API_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "driver.h"
#include "include/vgpu.h"

static inline void want(int actual, int expected, const char *what)
{
    if (actual != expected)
        fail("%s: %d (%s) where %d is expected", what, actual, actual < 0 ? vgpu_detail() : "", expected);
}

#define WANT(call, expected) want((call), (expected), #call)
#define DONE(call) WANT(call, 0)

// A refusal, with words that its line must have.
#define REFUSED(call, expected, words)                                                                                         \
    do {                                                                                                                       \
        WANT(call, expected);                                                                                                  \
        if (!strstr(vgpu_detail(), words))                                                                                     \
            fail("%s: its line \"%s\" lacks \"%s\"", #call, vgpu_detail(), words);                                             \
    } while (0)

#define EQUAL(actual, expected)                                                                                                \
    do {                                                                                                                       \
        long long actual_value = (long long)(actual), expected_value = (long long)(expected);                                  \
        if (actual_value != expected_value)                                                                                    \
            fail("%s is %lld where %lld is expected (line %d)", #actual, actual_value, expected_value, __LINE__);              \
    } while (0)

static inline struct vgpu *api_create(const char *name, uint64_t memory_bytes, uint32_t weight)
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *vgpu = NULL;
    config.name = name;
    config.memory_bytes = memory_bytes;
    config.weight = weight;
    DONE(vgpu_create(&config, &vgpu));
    return vgpu;
}

// A kernel of simgpu/device/testkernels.cu, with the primary context of device 0 current.
static inline CUfunction api_kernel(const char *module_path, const char *name)
{
    static CUmodule module;
    CUfunction function;
    if (!module)
        OK(cuModuleLoad(&module, module_path));
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static inline int api_launch(struct vgpu *vgpu, CUfunction function, vgpu_stream stream, void **args)
{
    struct vgpu_launch_config launch = VGPU_LAUNCH_INIT;
    launch.function = function;
    launch.stream = stream;
    launch.args = args;
    return vgpu_launch(vgpu, &launch);
}

static inline void api_spin(struct vgpu *vgpu, CUfunction spin, uint64_t ns)
{
    void *args[] = {&ns};
    DONE(api_launch(vgpu, spin, NULL, args));
}

static inline size_t api_free_bytes(struct vgpu *vgpu)
{
    size_t available, total;
    DONE(vgpu_mem_info(vgpu, &available, &total));
    return available;
}

static inline uint64_t api_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

#endif
