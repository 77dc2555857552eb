// SPDX-License-Identifier: AGPL-3.0-or-later
#include "lib/home.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/version.h"
#include "lib/region.h"
#include "options/options.h"
#include "scheduler/agent.h"
#include "shim/calibrate.h"

#define GIB(bytes) ((double)(bytes) / (1ull << 30))

_Atomic uint64_t home_generation = 1;

static struct {
    pthread_mutex_t mutex;
    bool attached;
    pid_t attached_pid; // whose state this is: in a child made by _Fork or clone no fork handler ran
    bool handlers;      // inherited by a forked child, like the handlers
    struct pool pool;
    uint32_t process;
    uint32_t bell; // the slot at whose doorbell the agent sleeps
    int count;
    struct home_gpu gpus[OPTIONS_MAX_DEVICES];
} home = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void forget_everything(void)
{
    pthread_mutex_init(&home.mutex, NULL);
    pool_forget_after_fork(&home.pool);
    agent_reset();
    home.attached = false;
    if (section_of_thread.vgpu)
        driver_exempt(false);
    section_of_thread = (struct section){0};
    service_reset();
    home_generation++;
}

static void at_exit(void)
{
    int saved = errno;
    // A child in the parent's address space (vfork) must not stop the parent's agent.
    if (home.attached && getpid() == home.attached_pid)
        agent_stop();
    errno = saved;
}

static int read_options(struct options *options)
{
    int rc = options_from_environment(options, &error_of_thread);
    if (rc == 0 && (rc = log_configure(options->log, options->log_file)) != 0)
        error_set(&error_of_thread, rc, "VGPU_LOG_FILE=%.200s cannot be opened: %s", options->log_file, strerror(-rc));
    return rc;
}

int home_pool_path(char path[PATH_MAX])
{
    struct options *options = malloc(sizeof *options);
    if (!options)
        return fail(-ENOMEM, "out of memory");
    int rc = options_from_environment(options, &error_of_thread);
    if (rc == 0)
        pool_default_path(path, options->pool);
    free(options);
    return rc;
}

static int find_gpus(void)
{
    int rc = fail_driver(driver.init(0), "cuInit");
    if (rc == 0)
        rc = fail_driver(REAL(cuDeviceGetCount)(&home.count), "cuDeviceGetCount");
    if (rc == 0 && (home.count < 1 || home.count > OPTIONS_MAX_DEVICES))
        rc = fail(-ENODEV, "%d GPUs are visible and 1 to %d are supported: set CUDA_VISIBLE_DEVICES", home.count,
                  OPTIONS_MAX_DEVICES);
    for (int i = 0; i < home.count && rc == 0; i++) {
        struct identity identity;
        rc = fail_driver(identify(i, &identity), "cuDeviceGetUuid");
        home.gpus[i] = (struct home_gpu){.ordinal = i, .bytes = identity.bytes, .mps = identity.mps};
        memcpy(home.gpus[i].uuid, identity.uuid, sizeof identity.uuid);
        memcpy(home.gpus[i].name, identity.name, sizeof identity.name);
    }
    return rc;
}

static int enter_pool(const char *path, uint64_t chunk_bytes)
{
    int rc = pool_open(&home.pool, path, chunk_bytes, &error_of_thread);
    if (rc)
        return rc;
    int lock = pool_lock(&home.pool, POOL_LOCK_PATIENCE_NS, &error_of_thread);
    rc = lock;
    if (lock >= 0) {
        pool_reap(&home.pool);
        rc = pool_claim(&home.pool, &error_of_thread);
        pool_unlock(lock);
    }
    if (rc < 0) {
        pool_close(&home.pool);
        return rc;
    }
    home.process = home.bell = (uint32_t)rc;
    const struct agent_service *agent = driver.door ? driver.door->agent(VGPU_VERSION, &home.pool, &home.bell) : NULL;
    if (agent)
        agent_use(agent);
    else
        agent_sleep_at(&home.pool.layout->processes[home.process].doorbell);
    return 0;
}

static int attach(void)
{
    struct options *options = malloc(sizeof *options);
    char path[PATH_MAX];
    if (!options)
        return fail(-ENOMEM, "out of memory");
    int rc = read_options(options);
    if (rc == 0)
        rc = driver_open(&error_of_thread);
    if (rc == 0)
        rc = find_gpus();
    if (rc == 0 && !home.handlers && (pthread_atfork(NULL, NULL, forget_everything) || atexit(at_exit)))
        rc = fail(-ENOMEM, "out of memory");
    if (rc == 0) {
        home.handlers = true;
        pool_default_path(path, options->pool);
        rc = enter_pool(path, options->chunk_bytes);
    }
    home.attached = rc == 0;
    home.attached_pid = getpid();
    free(options);
    return rc;
}

int home_gpu_enter(struct pool *pool, const struct home_gpu *gpu)
{
    int index = pool_gpu_enter(pool, gpu->uuid, gpu->name, gpu->bytes, &error_of_thread);
    if (index < 0)
        return index;
    struct pool_gpu *record = &pool->layout->gpus[index];
    if (atomic_load(&record->context_bytes) == 0)
        atomic_store(&record->context_bytes, calibrate_context(gpu->ordinal));
    return index;
}

// Joins the GPU without a quota, once, to pay for the context.
static int join(struct home_gpu *gpu)
{
    const struct tenancy_request request = {.mps = gpu->mps};
    int lock = pool_lock(&home.pool, POOL_LOCK_PATIENCE_NS, &error_of_thread);
    if (lock < 0)
        return lock;
    pool_reap(&home.pool);
    int index = home_gpu_enter(&home.pool, gpu);
    int vgpu = index < 0 ? index : pool_vgpu_join(&home.pool, home.process, (uint32_t)index, &request, &error_of_thread);
    pool_unlock(lock);
    if (vgpu < 0)
        return vgpu;
    holdings_init(&gpu->holdings, &home.pool, home.process, (uint32_t)index, (uint32_t)vgpu);
    return 0;
}

static int charge_context(struct home_gpu *gpu)
{
    if (driver.door) // the hooks charge the context
        return 0;
    int rc = gpu->holdings.pool ? 0 : join(gpu);
    if (rc)
        return rc;
    const struct pool_gpu *record = &home.pool.layout->gpus[gpu->holdings.gpu];
    uint64_t bytes = context_bytes_or_usual(atomic_load(&record->context_bytes), gpu->bytes);
    if (holdings_take(&gpu->holdings, bytes))
        return fail(-ENOMEM, "a CUDA context takes %.2f GiB on GPU %d (%s), and only %.2f GiB there are not reserved",
                    GIB(bytes), gpu->ordinal, gpu->name, GIB(holdings_look(&gpu->holdings).free_bytes));
    gpu->charged_bytes = bytes;
    return 0;
}

static void discharge_context(struct home_gpu *gpu)
{
    if (gpu->charged_bytes)
        holdings_give(&gpu->holdings, gpu->charged_bytes);
    gpu->charged_bytes = 0;
}

static int retain(struct home_gpu *gpu)
{
    int rc = charge_context(gpu);
    if (rc)
        return rc;
    rc = fail_driver(driver.primary_retain(&gpu->context, gpu->ordinal), "cuDevicePrimaryCtxRetain");
    if (rc)
        discharge_context(gpu);
    return rc;
}

// 32 hexadecimal digits, with dashes between them, after "GPU-" or "MIG-" or nothing.
static bool parse_uuid(const char *text, uint8_t uuid[POOL_UUID_BYTES])
{
    unsigned digits = 0;
    if (strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0)
        text += 4;
    for (; *text; text++) {
        static const char hexadecimal[] = "0123456789abcdef";
        const char *digit = strchr(hexadecimal, *text | 0x20);
        if (*text == '-')
            continue;
        if (!digit || digits == 2 * POOL_UUID_BYTES)
            return false;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | (digit - hexadecimal));
        digits++;
    }
    return digits == 2 * POOL_UUID_BYTES;
}

static int choose(const char *text, int32_t ordinal, struct home_gpu **gpu)
{
    uint8_t uuid[POOL_UUID_BYTES] = {0};
    if (!text && (ordinal < 0 || ordinal >= home.count))
        return fail(-ENODEV, "device %d: this process sees %d GPU%s, numbered from 0", ordinal, home.count,
                    home.count == 1 ? "" : "s");
    if (!text) {
        *gpu = &home.gpus[ordinal];
        return 0;
    }
    if (!parse_uuid(text, uuid))
        return fail(-EINVAL, "device_uuid %.80s: allowed is GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text);
    for (int i = 0; i < home.count; i++)
        if (memcmp(home.gpus[i].uuid, uuid, sizeof uuid) == 0) {
            *gpu = &home.gpus[i];
            return 0;
        }
    return fail(-ENODEV, "device_uuid %.80s: this process sees no such GPU", text);
}

int home_gpu_acquire(const char *uuid, int32_t ordinal, struct home_gpu **gpu)
{
    pthread_mutex_lock(&home.mutex);
    int rc = home.attached ? 0 : attach();
    if (rc == 0)
        rc = choose(uuid, ordinal, gpu);
    if (rc == 0 && (*gpu)->users == 0)
        rc = retain(*gpu);
    if (rc == 0)
        (*gpu)->users++;
    pthread_mutex_unlock(&home.mutex);
    return rc;
}

void home_gpu_release(struct home_gpu *gpu)
{
    pthread_mutex_lock(&home.mutex);
    if (--gpu->users == 0) {
        driver.primary_release(gpu->ordinal);
        discharge_context(gpu);
    }
    pthread_mutex_unlock(&home.mutex);
}

int home_pool_claim(struct pool *pool, uint32_t *slot, int *lock)
{
    // Of the home slot's pool, and no other that has taken its place: the bell is there.
    *lock = pool_lock(&home.pool, POOL_LOCK_PATIENCE_NS, &error_of_thread);
    if (*lock < 0)
        return *lock;
    int rc = pool_open_existing(pool, home.pool.path, &error_of_thread);
    if (rc == 0) {
        pool_reap(pool);
        rc = pool_claim(pool, &error_of_thread);
        if (rc < 0)
            pool_close(pool);
    }
    if (rc < 0) {
        pool_unlock(*lock);
        return rc;
    }
    *slot = (uint32_t)rc;
    atomic_store(&pool->layout->processes[*slot].bell, home.bell);
    return 0;
}
