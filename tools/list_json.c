// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/priority.h"
#include "base/version.h"
#include "tools/list.h"

// Failures to make a value are recorded on the way, so that the code below reads like the schema.
struct writer {
    bool failed;
};

static cJSON *checked(struct writer *writer, cJSON *item)
{
    writer->failed |= !item;
    return item;
}

// cJSON's numbers are doubles, which lose bits of counters beyond 2^53.
static void put_integer(struct writer *writer, cJSON *object, const char *name, uint64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    checked(writer, cJSON_AddRawToObject(object, name, digits));
}

static void put_text(struct writer *writer, cJSON *object, const char *name, const char *text)
{
    checked(writer, cJSON_AddStringToObject(object, name, text));
}

static void put_flag(struct writer *writer, cJSON *object, const char *name, bool value)
{
    checked(writer, cJSON_AddBoolToObject(object, name, value));
}

static void put_share(struct writer *writer, cJSON *object, const char *name, double share)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%.6f", share);
    checked(writer, share < 0 ? cJSON_AddNullToObject(object, name) : cJSON_AddRawToObject(object, name, digits));
}

// A new object at the end of `array`, which owns it.
static cJSON *add_object(struct writer *writer, cJSON *array)
{
    cJSON *object = checked(writer, cJSON_CreateObject());
    if (object && !cJSON_AddItemToArray(array, object)) {
        cJSON_Delete(object);
        return checked(writer, NULL);
    }
    return object;
}

static void put_pool(struct writer *writer, cJSON *root, const struct snapshot *snapshot)
{
    cJSON *pool = checked(writer, cJSON_AddObjectToObject(root, "pool"));
    put_text(writer, pool, "path", snapshot->path);
    put_flag(writer, pool, "exists", snapshot->exists);
    if (snapshot->exists) {
        put_integer(writer, pool, "version", snapshot->version);
        put_integer(writer, pool, "chunk_bytes", snapshot->chunk_bytes);
    } else {
        checked(writer, cJSON_AddNullToObject(pool, "version"));
        checked(writer, cJSON_AddNullToObject(pool, "chunk_bytes"));
    }
}

static void put_gpu(struct writer *writer, cJSON *array, const struct snapshot *snapshot, const struct snapshot_gpu *gpu)
{
    cJSON *object = add_object(writer, array);
    put_integer(writer, object, "index", gpu->index);
    put_text(writer, object, "uuid", gpu->uuid);
    put_text(writer, object, "name", gpu->name);
    put_integer(writer, object, "total_bytes", gpu->total_bytes);
    put_integer(writer, object, "reserved_bytes", gpu->reserved_bytes);
    put_integer(writer, object, "open_used_bytes", gpu->open_used_bytes);
    put_integer(writer, object, "context_bytes", gpu->context_bytes);
    put_integer(writer, object, "switch_ns", gpu->switch_ns);
    put_flag(writer, object, "mps", gpu->mps);
    for (size_t i = 0; i < snapshot->vgpu_count; i++) {
        if (snapshot->vgpus[i].index == gpu->holder) {
            put_text(writer, object, "holder", snapshot->vgpus[i].name);
            return;
        }
    }
    checked(writer, cJSON_AddNullToObject(object, "holder"));
}

static void put_processes(struct writer *writer, cJSON *vgpu, const struct snapshot_vgpu *from)
{
    cJSON *array = checked(writer, cJSON_AddArrayToObject(vgpu, "processes"));
    for (size_t i = 0; i < from->process_count; i++) {
        cJSON *object = add_object(writer, array);
        checked(writer, cJSON_AddNumberToObject(object, "pid", from->processes[i].pid));
        put_text(writer, object, "command", from->processes[i].command);
        put_integer(writer, object, "used_bytes", from->processes[i].used_bytes);
        put_integer(writer, object, "launches", from->processes[i].launches);
    }
}

static void put_us(struct writer *writer, cJSON *object, const char *name, uint64_t ns, bool known)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%.2f", (double)ns / NS_PER_US);
    checked(writer, known ? cJSON_AddRawToObject(object, name, digits) : cJSON_AddNullToObject(object, name));
}

// Non-empty buckets, as (start in nanoseconds, count), on one line, since there are up to 96 of them.
static void put_buckets(struct writer *writer, cJSON *object, const uint32_t counts[POOL_HISTOGRAM_BUCKETS])
{
    char text[POOL_HISTOGRAM_BUCKETS * 36 + 3] = "[";
    size_t length = 1;
    for (uint32_t i = 0; i < POOL_HISTOGRAM_BUCKETS; i++)
        if (counts[i])
            length += (size_t)snprintf(text + length, sizeof text - length, "%s[%" PRIu64 ", %" PRIu32 "]",
                                       length > 1 ? ", " : "", histogram_start_ns(i), counts[i]);
    snprintf(text + length, sizeof text - length, "]");
    checked(writer, cJSON_AddRawToObject(object, "buckets", text));
}

static void put_histogram(struct writer *writer, cJSON *vgpu, const char *name, const uint32_t counts[POOL_HISTOGRAM_BUCKETS])
{
    static const struct {
        const char *name;
        uint32_t permille;
    } quantiles[] = {{"p50_us", 500}, {"p90_us", 900}, {"p99_us", 990}, {"max_us", 1000}};
    cJSON *object = checked(writer, cJSON_AddObjectToObject(vgpu, name));
    uint64_t count = 0;
    for (uint32_t i = 0; i < POOL_HISTOGRAM_BUCKETS; i++)
        count += counts[i];
    put_integer(writer, object, "count", count);
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
        put_us(writer, object, quantiles[i].name, histogram_quantile_ns(counts, POOL_HISTOGRAM_BUCKETS, quantiles[i].permille),
               count > 0);
    put_buckets(writer, object, counts);
}

static const char *uuid_of(const struct snapshot *snapshot, uint32_t gpu)
{
    for (size_t i = 0; i < snapshot->gpu_count; i++)
        if (snapshot->gpus[i].index == gpu)
            return snapshot->gpus[i].uuid;
    return "";
}

static void put_vgpu(struct writer *writer, cJSON *array, const struct snapshot *snapshot, const struct snapshot_vgpu *vgpu)
{
    cJSON *object = add_object(writer, array);
    put_integer(writer, object, "index", vgpu->index);
    put_text(writer, object, "name", vgpu->name);
    put_integer(writer, object, "gpu", vgpu->gpu);
    put_text(writer, object, "gpu_uuid", uuid_of(snapshot, vgpu->gpu));
    put_integer(writer, object, "weight", vgpu->weight);
    put_text(writer, object, "priority", priority_name(vgpu->priority));
    put_integer(writer, object, "limit_percent", vgpu->limit_percent);
    put_integer(writer, object, "quantum_ns", vgpu->quantum_ns);
    put_integer(writer, object, "concurrency", vgpu->concurrency);
    put_integer(writer, object, "quota_bytes", vgpu->quota_bytes);
    put_integer(writer, object, "used_bytes", vgpu->used_bytes);
    put_integer(writer, object, "peak_bytes", vgpu->peak_bytes);
    put_integer(writer, object, "refusals", vgpu->refusals);
    put_integer(writer, object, "refused_bytes", vgpu->refused_bytes);
    put_share(writer, object, "share_interval", vgpu->share_interval);
    put_share(writer, object, "share_since_start", vgpu->share_since_start);
    put_integer(writer, object, "age_ns", snapshot->at_ns > vgpu->created_ns ? snapshot->at_ns - vgpu->created_ns : 0);
    put_integer(writer, object, "held_ns", vgpu->held_ns);
    put_integer(writer, object, "charged_ns", vgpu->charged_ns);
    put_integer(writer, object, "idle_ns", vgpu->idle_ns);
    put_integer(writer, object, "busy_ns", vgpu->charged_ns > vgpu->idle_ns ? vgpu->charged_ns - vgpu->idle_ns : 0);
    put_integer(writer, object, "waited_ns", vgpu->waited_ns);
    put_integer(writer, object, "overrun_ns", vgpu->overrun_ns);
    put_integer(writer, object, "launches", vgpu->launches);
    put_integer(writer, object, "waits", vgpu->waits);
    put_integer(writer, object, "grants", vgpu->grants);
    put_integer(writer, object, "revokes", vgpu->revokes);
    put_integer(writer, object, "overruns", vgpu->overruns);
    put_histogram(writer, object, "wait", vgpu->wait);
    put_histogram(writer, object, "handover", vgpu->handover);
    put_histogram(writer, object, "drain", vgpu->drain);
    put_flag(writer, object, "holder", vgpu->holder);
    put_flag(writer, object, "companion", vgpu->companion);
    put_flag(writer, object, "waiting", vgpu->waiting);
    put_processes(writer, object, vgpu);
}

int list_json(const struct snapshot *snapshot, FILE *out, bool pretty)
{
    struct writer writer = {false};
    cJSON *root = checked(&writer, cJSON_CreateObject());
    put_text(&writer, root, "version", VGPU_VERSION);
    put_integer(&writer, root, "at_ns", snapshot->at_ns);
    put_integer(&writer, root, "interval_ns", snapshot->interval_ns);
    put_pool(&writer, root, snapshot);
    cJSON *gpus = checked(&writer, cJSON_AddArrayToObject(root, "gpus"));
    for (size_t i = 0; i < snapshot->gpu_count; i++)
        put_gpu(&writer, gpus, snapshot, &snapshot->gpus[i]);
    cJSON *vgpus = checked(&writer, cJSON_AddArrayToObject(root, "vgpus"));
    for (size_t i = 0; i < snapshot->vgpu_count; i++)
        put_vgpu(&writer, vgpus, snapshot, &snapshot->vgpus[i]);

    char *text = writer.failed ? NULL : pretty ? cJSON_Print(root) : cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (!text)
        return -ENOMEM;
    fputs(text, out);
    fputc('\n', out);
    cJSON_free(text);
    return 0;
}
