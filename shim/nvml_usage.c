// SPDX-License-Identifier: AGPL-3.0-or-later
// NVML's utilization: the tenant's own.
//
// A GPU counts as busy for a tenant while the driver says that it is busy and the tenant holds the token: the smaller of the
// two shares of time. The token's is taken over the last second or more or, in a process's first question, since the virtual
// GPU began.
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "scheduler/grant.h"
#include "shim/nvml.h"

#define LONG_NS NS_PER_S           // an interval after which a new one may begin
#define SHORT_NS (100 * NS_PER_MS) // a shorter interval says nothing

// Per GPU of the pool: when the current interval began, what had been held by then, and the result of the one before.
static struct interval {
    uint64_t vgpu_created_ns; // another virtual GPU begins anew
    uint64_t since_ns, held_ns;
    unsigned int percent;
} intervals[POOL_MAX_GPUS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t held_until(const struct nvml_tenant *tenant, uint64_t now_ns)
{
    const struct pool_layout *layout = tenant->pool->layout;
    const struct pool_vgpu *vgpu = &layout->vgpus[tenant->vgpu];
    uint64_t word, held, begun, company;
    int tries = 8;
    do { // until both belong to the same grant
        word = atomic_load(&layout->gpus[tenant->gpu].token);
        held = atomic_load(&vgpu->held_ns);
        begun = grant_get(&vgpu->begun, word);
        company = grant_get(&layout->gpus[tenant->gpu].company_ns, word); // what others had in this grant
    } while (atomic_load(&layout->gpus[tenant->gpu].token) != word && --tries > 0);
    if (token_holder(word) != tenant->vgpu || grant_since(begun, now_ns) <= company)
        return held;
    return held + grant_since(begun, now_ns) - company;
}

// The tenant's share of the GPU's time, in percent.
static unsigned int held_percent(const struct nvml_tenant *tenant)
{
    if (!tenant->pool)
        return 0;
    struct interval *interval = &intervals[tenant->gpu];
    uint64_t created = tenant->pool->layout->vgpus[tenant->vgpu].created_ns;
    pthread_mutex_lock(&mutex);
    uint64_t now = clock_now_ns(), held = held_until(tenant, now);
    if (interval->vgpu_created_ns != created)
        *interval = (struct interval){.vgpu_created_ns = created, .since_ns = created};
    uint64_t whole = now > interval->since_ns ? now - interval->since_ns : 0;
    uint64_t part = held > interval->held_ns ? held - interval->held_ns : 0;
    unsigned int percent = interval->percent;
    if (whole >= SHORT_NS)
        percent = part < whole ? (unsigned int)((double)part * 100 / (double)whole) : 100;
    if (whole >= LONG_NS)
        *interval = (struct interval){created, now, held, percent};
    pthread_mutex_unlock(&mutex);
    return percent;
}

void nvml_reset(void)
{
    pthread_mutex_init(&mutex, NULL);
    memset(intervals, 0, sizeof intervals);
}

int nvmlDeviceGetUtilizationRates(void *device, struct nvml_utilization *utilization)
{
    struct nvml_tenant tenant;
    int result = NVML_REAL(nvmlDeviceGetUtilizationRates)(device, utilization);
    if (result != NVML_SUCCESS || !utilization || !nvml_tenant_open(&tenant, device))
        return result;
    unsigned int percent = held_percent(&tenant);
    if (percent < utilization->gpu) {
        utilization->memory = utilization->memory * percent / utilization->gpu;
        utilization->gpu = percent;
    }
    nvml_tenant_close(&tenant);
    return result;
}

// The driver's samples are of single processes; those of others are left out. The driver still decides how many samples there
// must be room for.
int nvmlDeviceGetProcessUtilization(void *device, struct nvml_process_sample *samples, unsigned int *count,
                                    unsigned long long last_seen_us)
{
    struct nvml_tenant tenant;
    int result = NVML_REAL(nvmlDeviceGetProcessUtilization)(device, samples, count, last_seen_us);
    if (result != NVML_SUCCESS || !samples || !count || !nvml_tenant_open(&tenant, device))
        return result;
    *count = nvml_keep_members(&tenant, samples, *count, sizeof *samples, offsetof(struct nvml_process_sample, pid));
    nvml_tenant_close(&tenant);
    return *count ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

int nvmlDeviceGetProcessesUtilizationInfo(void *device, struct nvml_process_usages *usages)
{
    struct nvml_tenant tenant;
    int result = NVML_REAL(nvmlDeviceGetProcessesUtilizationInfo)(device, usages);
    if (result != NVML_SUCCESS || !usages || !usages->usages || !nvml_tenant_open(&tenant, device))
        return result;
    usages->count = nvml_keep_members(&tenant, usages->usages, usages->count, sizeof *usages->usages,
                                      offsetof(struct nvml_process_usage, pid));
    nvml_tenant_close(&tenant);
    return usages->count ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
