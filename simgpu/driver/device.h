// The simulated devices of this process. All of it needs the API lock unless it says otherwise.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_DEVICE_H
#define SIMGPU_DRIVER_DEVICE_H

#include "simgpu/driver/api.h"

#define DEVICE_MAX_THREADS_PER_BLOCK 1024
#define DEVICE_SHARED_PER_BLOCK (48u << 10)
#define DEVICE_SHARED_PER_BLOCK_OPTIN 232448u // 227 KiB
#define DEVICE_SHARED_PER_SM 233472u          // 228 KiB
#define DEVICE_SM_COUNT 132
#define DEVICE_THREADS_PER_SM 2048
#define DEVICE_BLOCKS_PER_SM 32
// The largest arrays, in elements.
#define DEVICE_WIDTH_2D 131072
#define DEVICE_HEIGHT_2D 65536
#define DEVICE_EXTENT_3D 16384
#define DEVICE_LAYERED_EXTENT 32768
#define DEVICE_LAYERS 2048
#define DEVICE_GREATEST_PRIORITY (-5)

struct CUctx_st;
struct CUmemPoolHandle_st;
struct executor;

struct device {
    uint32_t index;            // on the node
    CUdevice ordinal;          // as this process counts
    struct CUctx_st *primary;  // made with the device, inactive until retained
    struct CUctx_st *contexts; // live contexts, the primary one included
    struct executor *executor; // NULL until the first context
    struct CUmemPoolHandle_st *default_pool, *current_pool, *pools;
    uint64_t sequence; // of the last operation submitted to any stream
};

// Sets up all devices of the state file. Called once, by cuInit.
void device_init(void);

// The device of an ordinal, NULL if there is none.
struct device *device_get(CUdevice ordinal);

#endif
