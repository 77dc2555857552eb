// Stream memory operations.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/value.h"

#include "simgpu/driver/context.h"
#include "simgpu/driver/memory.h"

#define MAX_BATCH 256

bool value_reached(const struct op *op)
{
    bool narrow = op->memory.bytes == 4;
    uint64_t value = op->memory.value;
    uint64_t now = narrow ? __atomic_load_n((uint32_t *)op->memory.address, __ATOMIC_ACQUIRE)
                          : __atomic_load_n((uint64_t *)op->memory.address, __ATOMIC_ACQUIRE);

    switch (op->memory.flags & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ: // cyclic
        return narrow ? (int32_t)((uint32_t)now - (uint32_t)value) >= 0 : (int64_t)(now - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
        return now == value;
    case CU_STREAM_WAIT_VALUE_AND:
        return (now & value) != 0;
    default:
        return narrow ? ~(uint32_t)(now | value) != 0 : ~(now | value) != 0;
    }
}

static CUresult describe(enum op_kind kind, CUdeviceptr address, uint64_t value, unsigned bytes, unsigned flags, struct op *op)
{
    unsigned known = kind == OP_WRITE_VALUE ? CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER : 3;

    *op = (struct op){.kind = kind,
                      .memory = {.address = (void *)(uintptr_t)address,
                                 .bytes = bytes,
                                 .flags = flags,
                                 .value = bytes == 4 ? (uint32_t)value : value}};
    if (flags & CU_STREAM_WAIT_VALUE_FLUSH && kind == OP_WAIT_VALUE)
        return CUDA_ERROR_NOT_SUPPORTED;
    return flags & ~known || address % bytes || !range_is_device(address, bytes) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult value_describe(const CUstreamBatchMemOpParams *p, struct op *op)
{
    switch (p->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        return describe(OP_WAIT_VALUE, p->waitValue.address, p->waitValue.value, 4, p->waitValue.flags, op);
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        return describe(OP_WAIT_VALUE, p->waitValue.address, p->waitValue.value64, 8, p->waitValue.flags, op);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        return describe(OP_WRITE_VALUE, p->writeValue.address, p->writeValue.value, 4, p->writeValue.flags, op);
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        return describe(OP_WRITE_VALUE, p->writeValue.address, p->writeValue.value64, 8, p->writeValue.flags, op);
    case CU_STREAM_MEM_OP_BARRIER:
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        *op = (struct op){.kind = OP_NOTHING};
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult submit(bool per_thread, CUstream handle, unsigned count, const CUstreamBatchMemOpParams *params)
{
    struct CUctx_st *ctx;
    struct CUstream_st *stream;
    struct op ops[MAX_BATCH];
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    rc = stream_resolve(per_thread, handle, &stream);
    // All or nothing: nothing is queued before everything was checked.
    for (unsigned i = 0; i < count && !rc; i++)
        rc = value_describe(&params[i], &ops[i]);
    for (unsigned i = 0; i < count && !rc; i++)
        rc = stream_submit(stream, &ops[i]);
    return api_leave(rc);
}

static CUresult cuStreamBatchMemOp_any(bool per_thread, CUstream stream, unsigned count, CUstreamBatchMemOpParams *params,
                                       unsigned flags)
{
    if (!params || !count || count > MAX_BATCH || flags)
        return api_ready() ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_INITIALIZED;
    return submit(per_thread, stream, count, params);
}

static CUresult cuStreamBatchMemOp_v2_any(bool per_thread, CUstream stream, unsigned count, CUstreamBatchMemOpParams *params,
                                          unsigned flags)
{
    return cuStreamBatchMemOp_any(per_thread, stream, count, params, flags);
}

TWIN_API(cuStreamBatchMemOp, _ptsz, (CUstream stream, unsigned count, CUstreamBatchMemOpParams *params, unsigned flags), stream,
         count, params, flags)
TWIN_API(cuStreamBatchMemOp_v2, _ptsz, (CUstream stream, unsigned count, CUstreamBatchMemOpParams *params, unsigned flags),
         stream, count, params, flags)

// The single operations are batches of one; the older versions differ only in what devices had to support.
#define VALUE_API(name, member, field, type, code)                                                                             \
    static CUresult name##_any(bool per_thread, CUstream stream, CUdeviceptr address, type value, unsigned flags)              \
    {                                                                                                                          \
        CUstreamBatchMemOpParams params = {.member = {.operation = code, .address = address, .field = value, .flags = flags}}; \
        return submit(per_thread, stream, 1, &params);                                                                         \
    }                                                                                                                          \
    TWIN_API(name, _ptsz, (CUstream stream, CUdeviceptr address, type value, unsigned flags), stream, address, value, flags)

VALUE_API(cuStreamWaitValue32, waitValue, value, cuuint32_t, CU_STREAM_MEM_OP_WAIT_VALUE_32)
VALUE_API(cuStreamWaitValue64, waitValue, value64, cuuint64_t, CU_STREAM_MEM_OP_WAIT_VALUE_64)
VALUE_API(cuStreamWriteValue32, writeValue, value, cuuint32_t, CU_STREAM_MEM_OP_WRITE_VALUE_32)
VALUE_API(cuStreamWriteValue64, writeValue, value64, cuuint64_t, CU_STREAM_MEM_OP_WRITE_VALUE_64)
VALUE_API(cuStreamWaitValue32_v2, waitValue, value, cuuint32_t, CU_STREAM_MEM_OP_WAIT_VALUE_32)
VALUE_API(cuStreamWaitValue64_v2, waitValue, value64, cuuint64_t, CU_STREAM_MEM_OP_WAIT_VALUE_64)
VALUE_API(cuStreamWriteValue32_v2, writeValue, value, cuuint32_t, CU_STREAM_MEM_OP_WRITE_VALUE_32)
VALUE_API(cuStreamWriteValue64_v2, writeValue, value64, cuuint64_t, CU_STREAM_MEM_OP_WRITE_VALUE_64)
