// Events. An event points to its last recording; who waits for it holds the recording, so recording anew disturbs nobody.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_EVENT_H
#define SIMGPU_DRIVER_EVENT_H

#include "simgpu/driver/api.h"

struct CUctx_st;
struct event_page;
struct record;

struct CUevent_st {
    struct CUctx_st *ctx;
    unsigned references; // the handle, and nodes of graphs
    unsigned flags;
    struct record *last;     // NULL before the first recording
    struct event_page *page; // of an event between processes, else NULL
    int page_fd;
    bool imported; // another process records it
    bool captured; // last recorded into a capture: not a thing that can be queried
    uint64_t capture_id;
    CUgraphNode *capture_deps;
    size_t capture_dep_count;
};

void event_release(struct CUevent_st *event);

// Of an event with a page: what follows its recording, what waits for an imported one, and its end.
CUresult event_page_record(struct CUevent_st *event, struct CUstream_st *stream);
CUresult event_page_wait(struct CUevent_st *event, struct CUstream_st *stream);
void event_page_release(struct CUevent_st *event);

// Records the event in a stream that does not capture, or makes the stream wait for its last recording.
CUresult event_record(struct CUevent_st *event, struct CUstream_st *stream);
CUresult event_wait(struct CUevent_st *event, struct CUstream_st *stream);

#endif
