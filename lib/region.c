// SPDX-License-Identifier: AGPL-3.0-or-later
// Regions: made, opened, mapped, paid for and closed. lib/region.h has the overview.
#include "lib/region.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define OWNER_LOOK_NS (20 * NS_PER_MS)
#define FETCH_TRIES 3

void region_charge(struct region *region)
{
    struct vgpu_region *map = region->maps;
    struct vgpu_region *before = region->payer;
    while (map == before)
        map = map->next;
    holdings_impose(&map->vgpu->holdings, region->bytes);
    region->payer = map;
    if (before)
        holdings_give(&before->vgpu->holdings, region->bytes);
}

static struct region *find(const char *path, const char *name)
{
    for (struct region *region = regions; region; region = region->next)
        if (!atomic_load(&region->page->unlinked) && strcmp(region->name, name) == 0 && strcmp(region->path, path) == 0)
            return region;
    return NULL;
}

static struct region *find_page(uint64_t id)
{
    for (struct region *region = regions; region; region = region->next)
        if (region->page->id == id)
            return region;
    return NULL;
}

static struct region *new_region(const char *path, const char *name, int page_fd, int memory_fd)
{
    struct region *region = calloc(1, sizeof *region);
    if (!region) {
        fail(-ENOMEM, "out of memory");
        return NULL;
    }
    *region = (struct region){.page_fd = page_fd, .memory_fd = memory_fd, .listener = -1};
    snprintf(region->name, sizeof region->name, "%s", name);
    snprintf(region->path, sizeof region->path, "%s", path);
    return region;
}

static void enter(struct region *region)
{
    region->next = regions;
    regions = region;
    atomic_fetch_add(&region->page->users, 1);
}

// Ends those that have no mapping in this process any more.
static void drop(struct region *region)
{
    for (struct region **link = &regions; *link; link = &(*link)->next)
        if (*link == region) {
            *link = region->next;
            break;
        }
    // If others have it, the name waits for the next owner. Removed while the socket is still open, so that nobody takes it for
    // abandoned and puts up another first.
    if (atomic_fetch_sub(&region->page->users, 1) == 1 && region->listener >= 0 && !atomic_load(&region->page->unlinked))
        socket_remove(region->path, region->name);
    if (region->listener >= 0)
        close(region->listener);
    REAL(cuMemRelease)(region->memory);
    page_unmap(region->page);
    close(region->page_fd);
    close(region->memory_fd);
    free(region);
}

static int map(struct vgpu *vgpu, struct region *region, unsigned flags, struct vgpu_region **out)
{
    bool readonly = flags & VGPU_REGION_READONLY;
    const CUmemAccessDesc access = {
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = vgpu->gpu->ordinal},
        .flags = readonly ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    struct vgpu_region *made = calloc(1, sizeof *made);
    if (!made)
        return fail(-ENOMEM, "out of memory");
    *made = (struct vgpu_region){.vgpu = vgpu, .region = region, .readonly = readonly};
    int rc = fail_driver(REAL(cuMemAddressReserve)(&made->address, region->bytes, 0, 0, 0), "cuMemAddressReserve");
    if (rc)
        goto free_map;
    rc = fail_driver(REAL(cuMemMap)(made->address, region->bytes, 0, region->memory, 0), "cuMemMap");
    if (rc)
        goto free_range;
    rc = fail_driver(REAL(cuMemSetAccess)(made->address, region->bytes, &access, 1), "cuMemSetAccess");
    if (rc)
        goto unmap;
    made->next = region->maps;
    region->maps = made;
    atomic_fetch_add(&vgpu->regions, 1);
    *out = made;
    return 0;

unmap:
    REAL(cuMemUnmap)(made->address, region->bytes);
free_range:
    REAL(cuMemAddressFree)(made->address, region->bytes);
free_map:
    free(made);
    return rc;
}

static void unmap(struct vgpu_region *map)
{
    struct region *region = map->region;
    REAL(cuMemUnmap)(map->address, region->bytes);
    REAL(cuMemAddressFree)(map->address, region->bytes);
    if (region->payer == map && (region->maps != map || map->next)) {
        region_charge(region);
    } else if (region->payer == map) {
        region->payer = NULL;
        holdings_give(&map->vgpu->holdings, region->bytes);
    }
    struct vgpu_region **link = &region->maps;
    while (*link != map)
        link = &(*link)->next;
    *link = map->next;
    region_sync_end(map);
    atomic_fetch_sub(&map->vgpu->regions, 1);
    free(map);
}

static int create_memory(struct vgpu *vgpu, uint64_t bytes, CUmemGenericAllocationHandle *memory, int *fd)
{
    const CUmemAllocationProp properties = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = vgpu->gpu->ordinal},
    };
    if (holdings_take(&vgpu->holdings, bytes)) {
        holdings_count_refusal(&vgpu->holdings, bytes);
        return fail(-ENOMEM, "a region of %llu MiB does not fit: %llu MiB are free", (unsigned long long)(bytes >> 20),
                    (unsigned long long)(holdings_look(&vgpu->holdings).free_bytes >> 20));
    }
    int rc = fail_driver(REAL(cuMemCreate)(memory, bytes, &properties, 0), "cuMemCreate");
    if (rc)
        goto give;
    rc = fail_driver(REAL(cuMemExportToShareableHandle)(fd, *memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
                     "cuMemExportToShareableHandle");
    if (rc)
        goto release;
    *fd = descriptor_apart(*fd);
    if (*fd < 0) {
        rc = fail(-errno, "no descriptor for a region: %s", strerror(errno));
        goto release;
    }
    fcntl(*fd, F_SETFD, FD_CLOEXEC);
    return 0;

release:
    REAL(cuMemRelease)(*memory);
give:
    holdings_give(&vgpu->holdings, bytes);
    return rc;
}

// Under the mutex, with the pool locked and the name free.
static int make(struct vgpu *vgpu, const char *name, uint64_t bytes, struct vgpu_region **out)
{
    int page_fd, memory_fd;
    CUmemGenericAllocationHandle memory;
    int rc = create_memory(vgpu, bytes, &memory, &memory_fd);
    if (rc)
        return rc;
    rc = page_create(bytes, vgpu->gpu->uuid, &page_fd);
    if (rc)
        goto release_memory;
    struct region *region = new_region(vgpu->pool.path, name, page_fd, memory_fd);
    rc = region ? page_map(page_fd, &region->page, &region->owned) : -ENOMEM;
    if (rc) {
        free(region);
        close(page_fd);
        goto release_memory;
    }
    region->memory = memory;
    region->bytes = bytes;
    enter(region);
    struct vgpu_region *made;
    rc = map(vgpu, region, 0, &made);
    if (rc) {
        drop(region);
        holdings_give(&vgpu->holdings, bytes);
        return rc;
    }
    region->payer = made;
    rc = region->listener = socket_listen(region);
    if (rc >= 0)
        rc = service_notify();
    if (rc) {
        unmap(made);
        drop(region);
        return rc;
    }
    *out = made;
    return 0;

release_memory:
    close(memory_fd);
    REAL(cuMemRelease)(memory);
    holdings_give(&vgpu->holdings, bytes);
    return rc;
}

// A dead owner's name is taken over by whoever still has the region; if nobody does, it stays refused.
static int await_owner(const char *path, const char *name)
{
    int rc;
    for (uint64_t until = clock_now_ns() + REGION_PATIENCE_NS; (rc = socket_probe(path, name)) == REGION_SOCKET_STALE;) {
        if (clock_now_ns() >= until)
            break;
        clock_sleep_ns(OWNER_LOOK_NS);
    }
    return rc;
}

// Asks the owner for the descriptors or, if it goes meanwhile, its successor.
static int fetch(const char *path, const char *name, int *page_fd, int *memory_fd)
{
    int rc = REGION_SOCKET_RESET;
    for (int i = 0; i < FETCH_TRIES && rc == REGION_SOCKET_RESET; i++) {
        await_owner(path, name);
        rc = socket_fetch(path, name, page_fd, memory_fd);
    }
    return rc == REGION_SOCKET_RESET ? -ENOENT : rc;
}

static int create(struct vgpu *vgpu, const char *name, uint64_t bytes, struct vgpu_region **out)
{
    const char *path = vgpu->pool.path;
    await_owner(path, name);
    // Without a lock: what the heap has but nobody uses is as good as free, but may take long to give back.
    if (bytes > holdings_look(&vgpu->holdings).free_bytes)
        heap_trim(vgpu->heap, 0);
    pthread_mutex_lock(&regions_mutex);
    int lock = pool_lock(&vgpu->pool, POOL_LOCK_PATIENCE_NS, &error_of_thread), rc = lock;
    if (lock >= 0) {
        if (find(path, name) || (rc = socket_probe(path, name)) == 0) {
            rc = fail(-EEXIST, "the region %s exists already: vgpu_region_open maps it", name);
        } else {
            if (rc == REGION_SOCKET_STALE)
                socket_remove(path, name);
            rc = make(vgpu, name, bytes, out);
        }
        pool_unlock(lock);
    }
    pthread_mutex_unlock(&regions_mutex);
    return rc;
}

// The region of the descriptors, entered; they are then closed or belong to it. Under the mutex.
static int adopt(struct vgpu *vgpu, const char *name, int page_fd, int memory_fd, struct region **out)
{
    struct region *region = new_region(vgpu->pool.path, name, page_fd, memory_fd);
    int rc = region ? page_map(page_fd, &region->page, &region->owned) : -ENOMEM;
    if (rc)
        goto free_region;
    *out = find_page(region->page->id); // another thread was faster
    region->bytes = region->page->bytes;
    if (!*out && (region->bytes == 0 || region->bytes % HEAP_BLOCK_BYTES || region->bytes > vgpu->gpu->bytes))
        rc = fail(-EPROTO, "the page of the region %s is damaged", name);
    else if (!*out && memcmp(region->page->uuid, vgpu->gpu->uuid, POOL_UUID_BYTES) != 0)
        rc = fail(-ENODEV, "the region %s is on another GPU than this virtual GPU", name);
    else if (!*out)
        rc = fail_driver(REAL(cuMemImportFromShareableHandle)(&region->memory, (void *)(intptr_t)memory_fd,
                                                              CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
                         "cuMemImportFromShareableHandle");
    if (rc || *out)
        goto unmap_page;
    enter(region);
    *out = region;
    return 0;

unmap_page:
    page_unmap(region->page);
free_region:
    free(region);
    close(page_fd);
    close(memory_fd);
    return rc;
}

static int open_region(struct vgpu *vgpu, const char *name, unsigned flags, struct vgpu_region **out)
{
    int page_fd = -1, memory_fd, rc = 0;
    struct vgpu_region *made;
    pthread_mutex_lock(&regions_mutex);
    struct region *region = find(vgpu->pool.path, name);
    if (!region) {
        // The owner may be this process's neighbour in the same wait: no lock is held.
        pthread_mutex_unlock(&regions_mutex);
        rc = fetch(vgpu->pool.path, name, &page_fd, &memory_fd);
        pthread_mutex_lock(&regions_mutex);
        if (rc == 0)
            rc = adopt(vgpu, name, page_fd, memory_fd, &region);
        else if (rc == REGION_SOCKET_STALE)
            rc = -ENOENT;
    }
    if (rc == 0) {
        if (memcmp(region->page->uuid, vgpu->gpu->uuid, POOL_UUID_BYTES) != 0)
            rc = fail(-ENODEV, "the region %s is on another GPU than this virtual GPU", name);
        else
            rc = map(vgpu, region, flags, &made);
        if (rc == 0 && (rc = service_notify()) != 0)
            unmap(made);
        if (rc == 0)
            *out = made;
        else if (!region->maps)
            drop(region);
    }
    pthread_mutex_unlock(&regions_mutex);
    return rc;
}

VGPU_API int vgpu_region_create(struct vgpu *vgpu, const char *name, size_t bytes, struct vgpu_region **region)
{
    CALL call = call_begin_current(vgpu);
    int rc = call.rc ? call.rc : instance_check_name(name);
    if (rc)
        return rc;
    if (!region)
        return fail_no_result();
    if (bytes == 0)
        return fail(-EINVAL, "a region of 0 bytes");
    return create(vgpu, name, holdings_round_up(bytes, HEAP_BLOCK_BYTES), region);
}

VGPU_API int vgpu_region_open(struct vgpu *vgpu, const char *name, unsigned flags, struct vgpu_region **region)
{
    CALL call = call_begin_current(vgpu);
    int rc = call.rc ? call.rc : instance_check_name(name);
    if (rc)
        return rc;
    if (!region)
        return fail_no_result();
    if (flags & ~(unsigned)VGPU_REGION_READONLY)
        return fail(-EINVAL, "flags %#x: allowed is VGPU_REGION_READONLY, or 0", flags);
    return open_region(vgpu, name, flags, region);
}

VGPU_API int vgpu_region_close(struct vgpu_region *map)
{
    if (!map)
        return 0;
    CALL call = call_begin_current(map->vgpu);
    if (call.rc)
        return call.rc;
    streams_wait(&map->vgpu->streams);
    pthread_mutex_lock(&regions_mutex);
    struct region *region = map->region;
    unmap(map);
    if (!region->maps)
        drop(region);
    service_notify();
    pthread_mutex_unlock(&regions_mutex);
    return 0;
}

static int unlink_name(struct vgpu *vgpu, const char *name)
{
    int page_fd = -1, memory_fd;
    const char *path = vgpu->pool.path;
    int rc = fetch(path, name, &page_fd, &memory_fd);
    if (rc == REGION_SOCKET_STALE) {
        socket_remove(path, name);
        return fail(-ENOENT, "there is no region %s any more", name);
    }
    if (rc)
        return rc;
    close(memory_fd);
    struct region_page *page;
    bool owned;
    rc = page_map(page_fd, &page, &owned);
    if (rc == 0) {
        int lock = pool_lock(&vgpu->pool, POOL_LOCK_PATIENCE_NS, &error_of_thread);
        rc = lock < 0 ? lock : atomic_exchange(&page->unlinked, 1) ? fail(-ENOENT, "there is no region %s any more", name) : 0;
        if (rc == 0)
            socket_remove(path, name);
        if (lock >= 0)
            pool_unlock(lock);
        page_unmap(page);
    }
    close(page_fd);
    return rc;
}

VGPU_API int vgpu_region_unlink(struct vgpu *vgpu, const char *name)
{
    CALL call = call_begin(vgpu);
    int rc = call.rc ? call.rc : instance_check_name(name);
    return rc ? rc : unlink_name(vgpu, name);
}

VGPU_API void *vgpu_region_pointer(const struct vgpu_region *region)
{
    return region ? (void *)(uintptr_t)region->address : NULL;
}

VGPU_API size_t vgpu_region_bytes(const struct vgpu_region *region)
{
    return region ? region->region->bytes : 0;
}
