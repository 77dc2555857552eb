// Memory nodes of graphs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/graph_memory.h"

#include <string.h>
#include <sys/mman.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/graph.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/memory.h"
#include "simgpu/state/state.h"

struct graph_memory {
    struct graph_memory *next; // in `all`
    struct device *device;
    struct allocation *allocation;
    size_t bytes; // as asked
    unsigned references;
    unsigned under_way; // frees that are queued
    bool backed;        // has physical memory
    bool live;          // the program's, to be freed by it
};

static struct graph_memory *all;
static uint64_t reserved_high[STATE_MAX_DEVICES], used_high[STATE_MAX_DEVICES];

static uint64_t sum(const struct device *device, bool used)
{
    uint64_t bytes = 0;
    for (const struct graph_memory *memory = all; memory; memory = memory->next)
        if (memory->device == device && memory->backed && (!used || memory->live || memory->under_way))
            bytes += blocks_round(memory->bytes);
    return bytes;
}

CUresult graph_memory_new(struct device *device, size_t bytes, struct graph_memory **out)
{
    size_t rounded = blocks_round(bytes);

    if (!rounded)
        return bytes ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    struct graph_memory *memory = calloc(1, sizeof *memory);
    struct allocation *allocation = calloc(1, sizeof *allocation);
    void *base = memory && allocation
                     ? mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                     : MAP_FAILED;
    if (base == MAP_FAILED) {
        free(memory);
        free(allocation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    madvise(base, rounded, MADV_DONTFORK);
    *allocation = (struct allocation){
        .base = (uintptr_t)base, .bytes = bytes, .kind = ALLOCATION_GRAPH, .device = device, .graph = memory};
    CUresult rc = range_insert(allocation);
    if (rc) {
        munmap(base, rounded);
        free(memory);
        free(allocation);
        return rc;
    }
    *memory = (struct graph_memory){.next = all, .device = device, .allocation = allocation, .bytes = bytes, .references = 1};
    all = memory;
    *out = memory;
    return CUDA_SUCCESS;
}

void graph_memory_retain(struct graph_memory *memory)
{
    memory->references++;
}

static void unback(struct graph_memory *memory)
{
    if (memory->backed)
        state_release(memory->device->index, blocks_round(memory->bytes));
    memory->backed = false;
}

void graph_memory_release(struct graph_memory *memory)
{
    struct graph_memory **link = &all;

    if (--memory->references)
        return;
    while (*link != memory)
        link = &(*link)->next;
    *link = memory->next;
    unback(memory);
    range_remove(memory->allocation);
    munmap((void *)memory->allocation->base, blocks_round(memory->bytes));
    free(memory->allocation);
    free(memory);
}

CUdeviceptr graph_memory_address(const struct graph_memory *memory)
{
    return memory->allocation->base;
}

static bool freed_by(const struct CUgraphExec_st *exec, const struct graph_memory *memory)
{
    for (size_t i = 0; i < exec->count; i++)
        if (exec->nodes[i].op.kind == OP_GRAPH_FREE && exec->nodes[i].op.graph_memory == memory)
            return true;
    return false;
}

static void set_live(struct graph_memory *memory, bool live)
{
    if (memory->live == live)
        return;
    memory->live = live;
    if (live)
        graph_memory_retain(memory);
    else
        graph_memory_release(memory);
}

CUresult graph_memory_back(struct CUgraphExec_st *exec, bool launch)
{
    CUresult rc = CUDA_SUCCESS;
    size_t i;

    for (i = 0; i < exec->count && launch; i++)
        if (exec->nodes[i].op.kind == OP_GRAPH_ALLOC && exec->nodes[i].op.graph_memory->live &&
            !(exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH))
            return CUDA_ERROR_INVALID_VALUE;
    for (i = 0; i < exec->count && !rc; i++) {
        struct graph_memory *memory = exec->nodes[i].op.graph_memory;
        if (exec->nodes[i].op.kind != OP_GRAPH_ALLOC || memory->backed)
            continue;
        // What was got for this graph's other nodes stays for the next attempt, or until it is trimmed.
        if (state_reserve(memory->device->index, blocks_round(memory->bytes)))
            rc = CUDA_ERROR_OUT_OF_MEMORY;
        else
            memory->backed = true;
    }
    for (i = 0; i < exec->count && launch && !rc; i++) {
        struct graph_memory *memory = exec->nodes[i].op.graph_memory;
        if (exec->nodes[i].op.kind == OP_GRAPH_ALLOC && !freed_by(exec, memory))
            set_live(memory, true);
        else if (exec->nodes[i].op.kind == OP_GRAPH_FREE)
            memory->under_way++;
    }
    for (i = 0; i < STATE_MAX_DEVICES && device_get((CUdevice)i); i++) {
        uint64_t reserved = sum(device_get((CUdevice)i), false), used = sum(device_get((CUdevice)i), true);
        reserved_high[i] = reserved > reserved_high[i] ? reserved : reserved_high[i];
        used_high[i] = used > used_high[i] ? used : used_high[i];
    }
    return rc;
}

void graph_memory_freed(struct graph_memory *memory)
{
    if (memory->under_way)
        memory->under_way--;
}

CUresult graph_memory_free(struct allocation *allocation, struct CUstream_st *stream)
{
    struct graph_memory *memory = allocation->graph;
    struct op op = {.kind = OP_GRAPH_FREE, .graph_memory = memory};

    if (!stream ? !memory->live : !stream->capture && !memory->live)
        return CUDA_ERROR_INVALID_VALUE;
    if (!stream) {
        set_live(memory, false);
        return CUDA_SUCCESS;
    }
    graph_memory_retain(memory);
    if (stream->capture)
        return stream_submit(stream, &op);
    memory->under_way++;
    CUresult rc = stream_submit(stream, &op);
    if (rc)
        memory->under_way--;
    else
        set_live(memory, false);
    return rc;
}

void graph_memory_reset_device(struct device *device)
{
    for (struct graph_memory *memory = all, *next; memory; memory = next) {
        next = memory->next;
        if (memory->device != device)
            continue;
        unback(memory);
        set_live(memory, false);
    }
}

static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, const struct op *op)
{
    if (!handle_is(graph, HANDLE_GRAPH) || !graph_has_nodes(graph, deps, count)) {
        op_release(op);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return graph_add(graph, op, deps, count, out);
}

CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count,
                                CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    struct op op = {.kind = OP_GRAPH_ALLOC};
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = params ? device_get(params->poolProps.location.id) : NULL;
    if (!out || !device || params->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    rc = graph_memory_new(device, params->bytesize, &op.graph_memory);
    if (rc)
        return api_leave(rc);
    CUdeviceptr address = graph_memory_address(op.graph_memory);
    rc = add(out, graph, deps, count, &op);
    if (!rc)
        params->dptr = address;
    return api_leave(rc);
}

CUresult cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t count, CUdeviceptr ptr)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct allocation *allocation = range_find(ptr);
    if (!out || !allocation || allocation->base != ptr || allocation->kind != ALLOCATION_GRAPH)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    struct op op = {.kind = OP_GRAPH_FREE, .graph_memory = allocation->graph};
    op_retain(&op);
    return api_leave(add(out, graph, deps, count, &op));
}

CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(node, HANDLE_NODE) || node->op.kind != OP_GRAPH_ALLOC)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    const struct graph_memory *memory = node->op.graph_memory;
    *out = (CUDA_MEM_ALLOC_NODE_PARAMS){
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = (int)memory->device->index}},
        .bytesize = memory->bytes,
        .dptr = graph_memory_address(memory),
    };
    return api_leave(CUDA_SUCCESS);
}

CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *out)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(node, HANDLE_NODE) || node->op.kind != OP_GRAPH_FREE)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    *out = graph_memory_address(node->op.graph_memory);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGraphMemTrim(CUdevice dev)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    for (struct graph_memory *memory = all; memory; memory = memory->next)
        if (memory->device == device && !memory->live && !memory->under_way)
            unback(memory);
    return api_leave(device ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuDeviceGetGraphMemAttribute(CUdevice dev, CUgraphMem_attribute attribute, void *value)
{
    uint64_t bytes = 0;
    CUresult rc = api_enter();

    if (rc)
        return rc;
    struct device *device = device_get(dev);
    if (!device || !value)
        return api_leave(device ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_DEVICE);
    if (attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)
        bytes = sum(device, false);
    else if (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT)
        bytes = sum(device, true);
    else if (attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        bytes = reserved_high[device->index];
    else if (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
        bytes = used_high[device->index];
    else
        rc = CUDA_ERROR_INVALID_VALUE;
    if (!rc)
        memcpy(value, &bytes, sizeof bytes);
    return api_leave(rc);
}
