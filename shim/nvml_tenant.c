// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/nvml.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shim/heap_memory.h"
#include "shim/memory_pools.h"

// What a process reads of a pool it does not belong to.
struct nvml_onlooker {
    struct options options;
    struct pool pool;
};

static bool parse_uuid(const char *text, uint8_t uuid[POOL_UUID_BYTES])
{
    size_t digits = 0;
    if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
        return false;
    memset(uuid, 0, POOL_UUID_BYTES);
    for (text += 4; *text; text++) {
        static const char hex[] = "0123456789abcdef";
        if (*text == '-')
            continue;
        const char *digit = strchr(hex, tolower((unsigned char)*text));
        if (!digit || digits == 2 * POOL_UUID_BYTES)
            return false;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | (digit - hex));
        digits++;
    }
    return digits == 2 * POOL_UUID_BYTES;
}

// The number that CUDA would give to the device with this index and UUID, or -1 if it would not see it. With GPUs of several
// models and no CUDA_DEVICE_ORDER=PCI_BUS_ID, CUDA may count differently.
static int ordinal_of(unsigned int index, const char *uuid)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible)
        return (int)index;
    for (int ordinal = 0; *visible && ordinal < OPTIONS_MAX_DEVICES; ordinal++) {
        char *end;
        size_t length = strcspn(visible, ",");
        unsigned long number = strtoul(visible, &end, 10);
        bool is_number = end == visible + length && length > 0;
        // CUDA accepts an abbreviated UUID.
        if (is_number ? number == index : length > 4 && strncasecmp(visible, uuid, length) == 0)
            return ordinal;
        visible += length + (visible[length] == ',');
    }
    return -1;
}

static bool find_gpu(struct nvml_tenant *tenant, const uint8_t uuid[POOL_UUID_BYTES])
{
    const struct pool_layout *layout = tenant->onlooker->pool.layout;
    for (tenant->gpu = 0; tenant->gpu < POOL_MAX_GPUS; tenant->gpu++) {
        const struct pool_gpu *gpu = &layout->gpus[tenant->gpu];
        if (atomic_load(&gpu->state) == POOL_LIVE && memcmp(gpu->uuid, uuid, POOL_UUID_BYTES) == 0)
            return true;
    }
    return false;
}

static bool find_vgpu(struct nvml_tenant *tenant, const char *name)
{
    const struct pool_layout *layout = tenant->onlooker->pool.layout;
    POOL_EACH_BIT(index, layout->gpus[tenant->gpu].vgpus, POOL_MAX_VGPUS)
    {
        const struct pool_vgpu *vgpu = &layout->vgpus[index];
        if (atomic_load(&vgpu->state) == POOL_LIVE && strncmp(vgpu->name, name, POOL_NAME_BYTES) == 0) {
            tenant->vgpu = index;
            return true;
        }
    }
    return false;
}

// The tenant as the options describe it.
static bool look_on(struct nvml_tenant *tenant, void *nvml_device, const char *uuid_text, const uint8_t uuid[POOL_UUID_BYTES])
{
    struct nvml_onlooker *onlooker = tenant->onlooker;
    const struct options *options = &onlooker->options;
    struct nvml_memory physical = {0};
    struct error error;
    unsigned int index = 0;
    char path[PATH_MAX];
    if (options_from_environment(&onlooker->options, &error) ||
        (!options->given[OPTION_MEMORY] && !options->given[OPTION_NAME]))
        return false;
    if (NVML_REAL(nvmlDeviceGetMemoryInfo)(nvml_device, &physical) != NVML_SUCCESS)
        return false;
    if (NVML_REAL(nvmlDeviceGetIndex)(nvml_device, &index) != NVML_SUCCESS)
        index = UINT_MAX; // known only by its UUID
    int ordinal = ordinal_of(index, uuid_text);
    if (ordinal < 0 || ordinal >= OPTIONS_MAX_DEVICES)
        return false;
    uint64_t chunk = options->chunk_bytes ? options->chunk_bytes : POOL_DEFAULT_CHUNK_BYTES;
    pool_default_path(path, options->given[OPTION_POOL] ? options->pool : NULL);
    if (pool_open_readonly(&onlooker->pool, path, &error) == 0) {
        chunk = onlooker->pool.chunk_bytes;
        if (find_gpu(tenant, uuid)) {
            physical.total = onlooker->pool.layout->gpus[tenant->gpu].total_bytes; // what CUDA calls the total
            if (options->given[OPTION_NAME] && find_vgpu(tenant, options->name)) {
                tenant->pool = &onlooker->pool;
                return true;
            }
        }
    }
    tenant->quota_bytes = options_memory_bytes(&options->memory[ordinal], physical.total) / chunk * chunk;
    return tenant->quota_bytes != 0;
}

bool nvml_tenant_open(struct nvml_tenant *tenant, void *nvml_device)
{
    char text[NVML_UUID_BYTES] = "";
    uint8_t uuid[POOL_UUID_BYTES];
    int saved = errno;
    bool found = false;
    *tenant = (struct nvml_tenant){0};
    if (NVML_REAL(nvmlDeviceGetUUID)(nvml_device, text, sizeof text) != NVML_SUCCESS || !parse_uuid(text, uuid))
        goto out;
    if (device_attached()) {
        struct device *device;
        for (int ordinal = 0; !found && (device = device_of(ordinal)); ordinal++) {
            found = memcmp(uuid, device->uuid, sizeof uuid) == 0;
            const struct holdings *holdings = &device->holdings;
            if (found)
                *tenant = (struct nvml_tenant){.device = device,
                                               .pool = holdings->pool,
                                               .gpu = holdings->gpu,
                                               .vgpu = holdings->vgpu};
        }
    } else {
        tenant->onlooker = calloc(1, sizeof *tenant->onlooker);
        found = tenant->onlooker && look_on(tenant, nvml_device, text, uuid);
        if (!found)
            nvml_tenant_close(tenant);
    }
out:
    errno = saved;
    return found;
}

void nvml_tenant_close(struct nvml_tenant *tenant)
{
    int saved = errno;
    if (tenant->onlooker)
        pool_close(&tenant->onlooker->pool);
    free(tenant->onlooker);
    errno = saved;
}

struct holdings_view nvml_tenant_memory(const struct nvml_tenant *tenant, uint64_t *spare_bytes)
{
    *spare_bytes = 0;
    if (tenant->device) {
        pools_settle(); // as cuMemGetInfo does: both must say the same
        return heap_memory_view(tenant->device, spare_bytes);
    }
    if (!tenant->pool)
        return (struct holdings_view){.total_bytes = tenant->quota_bytes, .free_bytes = tenant->quota_bytes};
    const struct holdings holdings = {.pool = tenant->pool, .gpu = tenant->gpu, .vgpu = tenant->vgpu};
    return holdings_look(&holdings);
}

int nvml_tenant_members(const struct nvml_tenant *tenant, struct nvml_member **members)
{
    int count = 0, saved = errno;
    *members = calloc(POOL_MAX_PROCESSES, sizeof **members);
    if (!*members)
        return -ENOMEM;
    if (tenant->pool) {
        const struct pool_layout *layout = tenant->pool->layout;
        int probe = pool_probe_open(tenant->pool);
        POOL_EACH_BIT(process, layout->vgpus[tenant->vgpu].members, POOL_MAX_PROCESSES)
        {
            uint64_t chunks = account_holding(&layout->members[process][tenant->gpu]);
            if (pool_alive(probe, process))
                (*members)[count++] = (struct nvml_member){.pid = (unsigned int)layout->processes[process].pid,
                                                           .used_bytes = chunks * tenant->pool->chunk_bytes};
        }
        pool_probe_close(probe);
    }
    errno = saved;
    return count;
}
