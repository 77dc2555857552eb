// SPDX-License-Identifier: AGPL-3.0-or-later
// What toolkits before 13.0 do not declare of the driver functions in hooks.def and used.def. The hooks do not depend on the toolkit
// that they are built with: the driver they meet may be newer. Included by shim/hooks.h, behind cuda.h.
//
// Where the toolkit does declare them, the compiler compares.
#ifndef VGPU_SHIM_CUDA_COMPAT_H
#define VGPU_SHIM_CUDA_COMPAT_H

#if CUDA_VERSION < 12000
typedef int CUdriverProcAddressQueryResult;
#endif
typedef struct CUctxCreateParams_st CUctxCreateParams;
typedef struct CUgraphEdgeData_st CUgraphEdgeData;

CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev);
CUresult cuCtxRecordEvent(CUcontext hCtx, CUevent hEvent);
CUresult cuCtxSynchronize_v2(CUcontext ctx);
CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *symbolStatus);
CUresult cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependencyData, size_t numDependencies, CUstreamCaptureMode mode);
CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,
                                          const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                          CUstreamCaptureMode mode);

#endif
