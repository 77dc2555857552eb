// Events that other processes wait for. A handle names a page of the process that made the event: how often it was recorded, and which
// recording was reached. The page is reached through that process, so it is gone when the process is.
// SPDX-License-Identifier: AGPL-3.0-or-later
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simgpu/driver/context.h"
#include "simgpu/driver/event.h"
#include "simgpu/driver/handle.h"
#include "simgpu/driver/stream.h"

#define PAGE_BYTES 4096
#define HANDLE_MAGIC 0x746e657665ull

struct event_page {
    uint64_t recorded, reached;
};

struct ipc_handle {
    uint64_t magic;
    int32_t pid, fd;
};

_Static_assert(sizeof(struct ipc_handle) <= sizeof(CUipcEventHandle), "fits");

CUresult cuIpcGetEventHandle(CUipcEventHandle *out, CUevent event)
{
    CUresult rc = api_enter();

    if (rc)
        return rc;
    if (!out || !handle_is(event, HANDLE_EVENT) || !(event->flags & CU_EVENT_INTERPROCESS))
        return api_leave(CUDA_ERROR_INVALID_HANDLE);
    if (!event->page) {
        int fd = memfd_create("simgpu-event", MFD_CLOEXEC);
        void *page = MAP_FAILED;
        if (fd >= 0 && ftruncate(fd, PAGE_BYTES) == 0)
            page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED) {
            if (fd >= 0)
                close(fd);
            return api_leave(CUDA_ERROR_OPERATING_SYSTEM);
        }
        event->page = page;
        event->page_fd = fd;
    }
    const struct ipc_handle handle = {.magic = HANDLE_MAGIC, .pid = getpid(), .fd = event->page_fd};
    *out = (CUipcEventHandle){0};
    memcpy(out, &handle, sizeof handle);
    return api_leave(CUDA_SUCCESS);
}

CUresult cuIpcOpenEventHandle(CUevent *out, CUipcEventHandle from)
{
    struct CUctx_st *ctx;
    struct ipc_handle handle;
    char path[64];
    CUresult rc = api_enter_context(&ctx);

    if (rc)
        return rc;
    memcpy(&handle, &from, sizeof handle);
    if (!out || handle.magic != HANDLE_MAGIC)
        return api_leave(CUDA_ERROR_INVALID_VALUE);
    if (handle.pid == getpid())
        return api_leave(CUDA_ERROR_INVALID_CONTEXT);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)handle.pid, (int)handle.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    struct CUevent_st *event = page == MAP_FAILED ? NULL : calloc(1, sizeof *event);
    if (!event || !handle_add(event, HANDLE_EVENT)) {
        free(event);
        if (page != MAP_FAILED)
            munmap(page, PAGE_BYTES);
        return api_leave(page == MAP_FAILED ? CUDA_ERROR_MAP_FAILED : CUDA_ERROR_OUT_OF_MEMORY);
    }
    *event = (struct CUevent_st){.ctx = ctx,
                                 .references = 1,
                                 .flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING,
                                 .page = page,
                                 .page_fd = -1,
                                 .imported = true};
    *out = event;
    return api_leave(CUDA_SUCCESS);
}

CUresult event_page_record(struct CUevent_st *event, struct CUstream_st *stream)
{
    uint64_t number = __atomic_add_fetch(&event->page->recorded, 1, __ATOMIC_ACQ_REL);
    struct op op = {.kind = OP_WRITE_VALUE, .memory = {.address = &event->page->reached, .bytes = 8, .value = number}};
    return stream_submit(stream, &op);
}

CUresult event_page_wait(struct CUevent_st *event, struct CUstream_st *stream)
{
    uint64_t number = __atomic_load_n(&event->page->recorded, __ATOMIC_ACQUIRE);
    struct op op = {
        .kind = OP_WAIT_VALUE,
        .memory = {.address = &event->page->reached, .bytes = 8, .value = number, .flags = CU_STREAM_WAIT_VALUE_GEQ}};
    return stream_submit(stream, &op);
}

void event_page_release(struct CUevent_st *event)
{
    munmap(event->page, PAGE_BYTES);
    if (event->page_fd >= 0)
        close(event->page_fd);
}
