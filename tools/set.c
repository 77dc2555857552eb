// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu set: changes the options of live virtual GPUs.
//
// Invariant: afterwards the whole request is in force, or none of it and one line says why.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "options/options.h"
#include "pool/change.h"
#include "scheduler/notice.h"
#include "tools/command.h"
#include "tools/snapshot.h"

#define FLAG_GPU OPTION_COUNT
#define FLAG_HELP (OPTION_COUNT + 1)

struct request {
    const char *name; // of the command, for messages
    const char *vgpu, *gpu, *memory;
    struct options options;
};

// First what can be changed, in the order of the help; then the rest, from OPTION_POOL on.
static const struct option flags[] = {
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"weight", required_argument, NULL, OPTION_WEIGHT},
    {"limit", required_argument, NULL, OPTION_COMPUTE_LIMIT},
    {"priority", required_argument, NULL, OPTION_PRIORITY},
    {"quantum", required_argument, NULL, OPTION_QUANTUM},
    {"concurrency", required_argument, NULL, OPTION_CONCURRENCY},
    {"pool", required_argument, NULL, OPTION_POOL},
    {"compute-limit", required_argument, NULL, OPTION_COMPUTE_LIMIT}, // as `vgpu run` calls it
    {"gpu", required_argument, NULL, FLAG_GPU},
    {"help", no_argument, NULL, FLAG_HELP},
    {0},
};

void set_details(void)
{
    for (const struct option *flag = flags; flag->val != OPTION_POOL; flag++) {
        char text[48];
        snprintf(text, sizeof text, "--%s %s", flag->name, option_table[flag->val].value);
        printf("  %-20s %s\n", text, option_table[flag->val].purpose);
    }
    puts(
        "  --gpu GPU            only on this GPU: its number in 'vgpu list', or its UUID\n"
        "  --pool PATH          the pool (VGPU_POOL, or the default pool)\n\n"
        "NAME is the one that 'vgpu list' shows. Values are those of 'vgpu run'; see 'vgpu help env'. A quota cannot be smaller\n"
        "than what is in use, nor larger than what others leave. All changes are made, or none.\n"
        "Exit status: 0; 1 if there is no such virtual GPU, or a change is refused; 2 if an option is not understood.");
}

// Returns 0, or the exit status after writing the message. `help` is set if help was asked for.
static int parse_arguments(int argc, char **argv, struct request *request, bool *help)
{
    struct error error;
    bool changes = false;
    for (int id, typed = 0; (id = getopt_long(argc, argv, "h", flags, &typed)) != -1;) {
        if (id == FLAG_HELP || id == 'h') {
            *help = true;
            return STATUS_OK;
        }
        if (id < 0 || id > FLAG_GPU)
            return usage_hint(argv[0]);
        if (id == FLAG_GPU) {
            request->gpu = optarg;
            continue;
        }
        if (options_parse(&request->options, (enum option_id)id, optarg, &error)) {
            complain(argv[0], "--%s: %s", flags[typed].name, error.text);
            return STATUS_USAGE;
        }
        changes |= id != OPTION_POOL;
        if (id == OPTION_MEMORY)
            request->memory = optarg;
    }
    request->vgpu = argv[optind];
    if (!request->vgpu)
        complain(argv[0], "no virtual GPU given");
    else if (argv[optind + 1])
        complain(argv[0], "unexpected argument '%s'", argv[optind + 1]);
    else if (!changes)
        complain(argv[0], "nothing to change");
    else if (request->memory && strchr(request->memory, '='))
        complain(argv[0], "--memory %s: one quota at a time, with --gpu for one GPU of several", request->memory);
    else
        return STATUS_OK;
    return usage_hint(argv[0]);
}

static bool is_gpu(const struct pool_gpu *gpu, uint32_t index, const char *wanted)
{
    char number[16], uuid[SNAPSHOT_UUID_BYTES];
    snprintf(number, sizeof number, "%u", index);
    snapshot_format_uuid(uuid, gpu->uuid);
    return strcmp(wanted, number) == 0 || strcasecmp(wanted, uuid) == 0;
}

// The change for one virtual GPU: a part of the GPU differs from one GPU to the next.
static int make_change(const struct pool *pool, const struct request *request, uint32_t vgpu, struct pool_change *change,
                       struct error *error)
{
    const struct options *options = &request->options;
    const struct pool_gpu *gpu = &pool->layout->gpus[pool_gpu_of(&pool->layout->vgpus[vgpu])];
    *change = (struct pool_change){
        .vgpu = vgpu,
        .quota_chunks = options_memory_bytes(&options->memory[0], gpu->total_bytes) / pool->chunk_bytes,
        .weight = options->weight,
        .limit_percent = options->limit_percent,
        .priority = options->given[OPTION_PRIORITY] ? &options->priority : NULL,
        .quantum_ns = options->given[OPTION_QUANTUM] ? &options->quantum_ns : NULL,
        .concurrency = options->concurrency,
    };
    if (request->memory && !change->quota_chunks)
        return error_set(error, -EINVAL, "--memory %.80s is less than one chunk, which is %llu MiB in the pool %s",
                         request->memory, (unsigned long long)(pool->chunk_bytes >> 20), pool->path);
    return 0;
}

// Finds the virtual GPUs of this name, at most one on each GPU. Returns how many, or -errno.
static int find(const struct pool *pool, const struct request *request, struct pool_change changes[POOL_MAX_GPUS],
                struct error *error)
{
    const struct pool_layout *layout = pool->layout;
    int count = 0;
    bool taken[POOL_MAX_GPUS] = {false}; // in a damaged pool a name may be on a GPU twice
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        const struct pool_vgpu *vgpu = &layout->vgpus[i];
        uint32_t gpu = vgpu->gpu;
        if (atomic_load(&vgpu->state) != POOL_LIVE || gpu >= POOL_MAX_GPUS || taken[gpu] ||
            strncmp(vgpu->name, request->vgpu, sizeof vgpu->name) != 0)
            continue;
        if (request->gpu && !is_gpu(&layout->gpus[gpu], gpu, request->gpu))
            continue;
        taken[gpu] = true;
        int rc = make_change(pool, request, i, &changes[count++], error);
        if (rc)
            return rc;
    }
    if (count == 0)
        return error_set(error, -ENOENT, "there is no virtual GPU '%.80s'%s%.80s in the pool %s", request->vgpu,
                         request->gpu ? " on GPU " : "", request->gpu ? request->gpu : "", pool->path);
    return count;
}

static int apply(struct pool *pool, const struct request *request, struct error *error)
{
    struct pool_change changes[POOL_MAX_GPUS];
    uint32_t weights[POOL_MAX_GPUS], priorities[POOL_MAX_GPUS]; // before
    struct pool_vgpu *vgpus = pool->layout->vgpus;
    int lock = pool_lock(pool, POOL_LOCK_PATIENCE_NS, error);
    if (lock < 0)
        return lock;
    pool_reap(pool);
    int count = find(pool, request, changes, error);
    for (int i = 0; i < count; i++) {
        weights[i] = atomic_load(&vgpus[changes[i].vgpu].weight);
        priorities[i] = atomic_load(&vgpus[changes[i].vgpu].priority);
    }
    int rc = count < 0 ? count : pool_change(pool, changes, (size_t)count, error);
    for (int i = 0; i < count && rc == 0; i++)
        notice_change(pool->layout, changes[i].vgpu, weights[i], priorities[i]);
    pool_unlock(lock);
    return rc;
}

int command_set(int argc, char **argv)
{
    static struct request request;
    static struct pool pool;
    bool help = false;
    char path[PATH_MAX];
    struct error error;
    options_defaults(&request.options);
    int status = parse_arguments(argc, argv, &request, &help);
    if (status)
        return status;
    if (help) {
        help_command(command_find("set"));
        return STATUS_OK;
    }
    status = choose_pool(argv[0], request.options.given[OPTION_POOL] ? request.options.pool : NULL, path);
    if (status)
        return status;
    int rc = pool_open_existing(&pool, path, &error);
    if (rc == -ENOENT)
        error_set(&error, rc, "no pool at %s: nothing has run under vgpu", path);
    if (rc == 0)
        rc = apply(&pool, &request, &error);
    if (rc)
        complain(argv[0], "%s", error.text);
    return rc ? STATUS_FAILED : STATUS_OK;
}
