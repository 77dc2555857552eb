// SPDX-License-Identifier: AGPL-3.0-or-later
// Generations of a region: a publisher records an event that other processes can open, and writes its handle beside the number.
// A reader makes its own stream wait for that event. If the driver has no such events, the publisher waits for the work
// instead.
#include <string.h>

#include "base/futex.h"
#include "lib/region.h"

#define NEVER_NS (UINT64_MAX / 2)

// This process, as publications name it. Under the mutex.
static uint64_t self(void)
{
    static uint64_t number, generation; // of the home: a forked child is a different writer
    if (generation != atomic_load(&home_generation)) {
        generation = atomic_load(&home_generation);
        number = page_random();
    }
    return number;
}

// The mapping's event for a stream, which can be shared. NULL: the driver has none.
static const struct region_event *event_for(struct vgpu_region *map, vgpu_stream stream)
{
    struct region_event *own = &map->published[streams_index(&map->vgpu->streams, stream)];
    CUevent event;
    if (own->event)
        return own;
    if (REAL(cuEventCreate)(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS)
        return NULL;
    if (REAL(cuIpcGetEventHandle)(&own->handle, event) != CUDA_SUCCESS) {
        REAL(cuEventDestroy_v2)(event);
        return NULL;
    }
    own->event = event;
    return own;
}

static int record(struct vgpu_region *map, vgpu_stream stream, struct region_publication *publication)
{
    pthread_mutex_lock(&regions_mutex);
    const struct region_event *own = event_for(map, stream);
    uint64_t writer = self();
    pthread_mutex_unlock(&regions_mutex);
    if (!own)
        return fail_driver(REAL(cuStreamSynchronize)(stream), "cuStreamSynchronize");
    const struct vgpu *vgpu = map->vgpu;
    publication->writer = writer;
    publication->slot = vgpu->process;
    publication->started_ns = vgpu->pool.layout->processes[vgpu->process].started_ns;
    publication->event = own->handle;
    return fail_driver(REAL(cuEventRecord)(own->event, stream), "cuEventRecord");
}

static void write_words(struct region_place *place, const struct region_publication *publication)
{
    uint64_t words[REGION_WORDS];
    memcpy(words, publication, sizeof words);
    for (size_t i = 0; i < REGION_WORDS; i++)
        atomic_store(&place->words[i], words[i]);
}

static void read_words(const struct region_place *place, struct region_publication *publication)
{
    uint64_t words[REGION_WORDS];
    for (size_t i = 0; i < REGION_WORDS; i++)
        words[i] = atomic_load(&place->words[i]);
    memcpy(publication, words, sizeof words);
}

static uint64_t announce(struct region_page *page, const struct region_publication *publication)
{
    uint64_t generation = atomic_fetch_add(&page->next, 1) + 1, newest = atomic_load(&page->generation);
    struct region_place *place = &page->places[generation % REGION_PUBLICATIONS];
    atomic_store(&place->generation, 0);
    write_words(place, publication);
    atomic_store(&place->generation, generation);
    while (newest < generation && !atomic_compare_exchange_weak(&page->generation, &newest, generation))
        ;
    atomic_fetch_add(&page->bell, 1);
    futex_wake(&page->bell, FUTEX_EVERYONE);
    return generation;
}

// A call for a mapping, on a stream.
static struct call region_call(const struct vgpu_region *map, vgpu_stream *stream)
{
    if (!map)
        return (struct call){.entry = entry_begin(), .rc = fail(-EINVAL, "the region is NULL")};
    struct call call = call_begin_current(map->vgpu);
    if (call.rc == 0)
        call.rc = instance_stream(map->vgpu, stream);
    return call;
}

VGPU_API int vgpu_region_publish(struct vgpu_region *map, vgpu_stream stream, uint64_t *generation)
{
    CALL call = region_call(map, &stream);
    struct region_publication publication = {0};
    if (call.rc)
        return call.rc;
    if (map->readonly)
        return fail(-EPERM, "the region is mapped read-only: there is nothing to publish");
    int rc = record(map, stream, &publication);
    if (rc)
        return rc;
    // Not while another mapping of this process ends, which looks for its own: region_sync_end.
    pthread_mutex_lock(&regions_mutex);
    uint64_t number = announce(map->region->page, &publication);
    pthread_mutex_unlock(&regions_mutex);
    if (generation)
        *generation = number;
    return 0;
}

// Copies the newest publication. Returns its generation, or 0 if it is just being overwritten.
static uint64_t read_publication(struct region_page *page, struct region_publication *publication)
{
    uint64_t generation = atomic_load(&page->generation);
    struct region_place *place = &page->places[generation % REGION_PUBLICATIONS];
    if (atomic_load(&place->generation) != generation)
        return 0;
    read_words(place, publication);
    return atomic_load(&place->generation) == generation ? generation : 0;
}

static CUevent event_of(const struct vgpu_region *map, const CUipcEventHandle *handle)
{
    for (size_t i = 0; i < VGPU_MAX_STREAMS; i++)
        if (map->published[i].event && memcmp(&map->published[i].handle, handle, sizeof *handle) == 0)
            return map->published[i].event;
    return NULL;
}

static CUevent own_event(const struct vgpu_region *map, const CUipcEventHandle *handle)
{
    CUevent event = NULL;
    for (const struct vgpu_region *other = map->region->maps; other && !event; other = other->next)
        event = event_of(other, handle);
    return event;
}

static bool writer_lives(const struct vgpu *vgpu, const struct region_publication *publication)
{
    if (publication->slot >= POOL_MAX_PROCESSES)
        return false;
    int probe = pool_probe_open(&vgpu->pool);
    bool lives = pool_alive(probe, (uint32_t)publication->slot);
    pool_probe_close(probe);
    return lives && vgpu->pool.layout->processes[publication->slot].started_ns == publication->started_ns;
}

// *event is NULL if the work is over: its process is gone, and its work with it.
static int import_event(struct vgpu_region *map, const struct region_publication *publication, CUevent *event)
{
    *event = map->imported.event;
    if (*event && map->imported.writer == publication->writer &&
        memcmp(&map->imported.handle, &publication->event, sizeof publication->event) == 0)
        return 0;
    CUresult result = REAL(cuIpcOpenEventHandle)(event, publication->event);
    if (result != CUDA_SUCCESS) {
        *event = NULL;
        return writer_lives(map->vgpu, publication) ? fail_driver(result, "cuIpcOpenEventHandle") : 0;
    }
    if (map->imported.event)
        REAL(cuEventDestroy_v2)(map->imported.event);
    map->imported.event = *event;
    map->imported.writer = publication->writer;
    map->imported.handle = publication->event;
    return 0;
}

static int follow(struct vgpu_region *map, vgpu_stream stream, const struct region_publication *publication)
{
    CUevent event = NULL;
    int rc = 0;
    if (publication->writer == 0)
        return 0;
    pthread_mutex_lock(&regions_mutex);
    if (publication->writer == self())
        event = own_event(map, &publication->event);
    else
        rc = import_event(map, publication, &event);
    if (event)
        rc = fail_driver(REAL(cuStreamWaitEvent)(stream, event, 0), "cuStreamWaitEvent");
    pthread_mutex_unlock(&regions_mutex);
    return rc;
}

static int await(struct region_page *page, uint64_t seen, int64_t timeout_ns, struct region_publication *publication,
                 uint64_t *generation)
{
    uint64_t deadline_ns = timeout_ns < 0 ? NEVER_NS : clock_now_ns() + (uint64_t)timeout_ns;
    for (;;) {
        uint32_t bell = atomic_load(&page->bell); // before looking: a ring in between is not slept through
        uint64_t newest = atomic_load(&page->generation);
        if (newest > seen && (*generation = read_publication(page, publication)) > seen)
            return 0;
        if (atomic_load(&page->generation) != newest)
            continue; // overwritten while it was read
        if (section_of_thread.vgpu && timeout_ns)
            return fail(-EDEADLK, "waiting for a region in a turn, which lasts as long as the wait");
        if (clock_now_ns() >= deadline_ns)
            return fail(-ETIMEDOUT, "the region's generation is still %llu", (unsigned long long)newest);
        futex_wait(&page->bell, bell, FUTEX_EVERYONE, deadline_ns);
    }
}

VGPU_API int vgpu_region_await(struct vgpu_region *map, vgpu_stream stream, uint64_t seen, int64_t timeout_ns,
                               uint64_t *generation)
{
    CALL call = region_call(map, &stream);
    uint64_t newest = 0;
    struct region_publication publication = {0};
    int rc = call.rc ? call.rc : await(map->region->page, seen, timeout_ns, &publication, &newest);
    if (rc)
        return rc;
    rc = follow(map, stream, &publication);
    streams_touch(&map->vgpu->streams);
    if (rc == 0 && generation)
        *generation = newest;
    return rc;
}

void region_sync_end(struct vgpu_region *map)
{
    struct region_page *page = map->region->page;
    for (size_t i = 0; i < REGION_PUBLICATIONS; i++) {
        struct region_publication publication;
        uint64_t writer = self();
        read_words(&page->places[i], &publication);
        // Its work is complete. Another process may have taken the place meanwhile.
        if (publication.writer == writer && event_of(map, &publication.event))
            atomic_compare_exchange_strong(&page->places[i].words[0], &writer, 0);
    }
    for (size_t i = 0; i < VGPU_MAX_STREAMS; i++)
        if (map->published[i].event)
            REAL(cuEventDestroy_v2)(map->published[i].event);
    if (map->imported.event)
        REAL(cuEventDestroy_v2)(map->imported.event);
}
