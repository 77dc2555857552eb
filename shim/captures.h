// SPDX-License-Identifier: AGPL-3.0-or-later
// Captures, and how the GPU's work can be drained while one is under way: by marks that are put in time.
//
// During a capture the agent cannot mark a whole context, and no thread can mark another thread's default stream. So
//  - the thread that begins a capture marks everything given to the GPU until then;
//  - during the capture the agent marks the known streams one by one (shim/gpu_ops.c);
//  - during the capture each thread marks its own default stream after each of its launches into it. (The legacy stream, which
//    waits for all of these, cannot be marked while a stream that synchronises with it is captured.)
// Lock order: streams, then contexts.
#ifndef VGPU_SHIM_CAPTURES_H
#define VGPU_SHIM_CAPTURES_H

#include "shim/stream_table.h"

// Before and after the driver's call that begins a capture. The lock of the streams is held in between. Otherwise the agent,
// which marks streams under it, could find a stream not yet captured and record its event into the capture, and querying that
// event invalidates the capture.
void capture_begin(CUstream stream);
void capture_begun(CUstream stream, CUresult result);
// After the driver's call that ended a capture.
void capture_ended(CUstream stream);

// After a launch into `stream`, which was not being captured, while another stream may be.
void capture_launched(CUstream stream);

#endif
