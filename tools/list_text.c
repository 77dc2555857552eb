// SPDX-License-Identifier: AGPL-3.0-or-later
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/priority.h"
#include "tools/list.h"
#include "tools/table.h"

#define TEXT_BYTES 32
#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define PROCESSES_NAMED 3 // in one row; a joined name may have hundreds

#define VGPU_COLUMNS 17 // at most

// Which optional columns a list has: those in which somebody differs from the default.
struct shown {
    bool priority, limit, concurrency;
};

static size_t choose_columns(struct table_column columns[VGPU_COLUMNS], struct shown shown)
{
    const struct {
        struct table_column column;
        bool shown;
    } all[VGPU_COLUMNS] = {
        {{"GPU", true}, true},
        {{"NAME", false}, true},
        {{"WEIGHT", true}, true},
        {{"PRIORITY", false}, shown.priority},
        {{"LIMIT", true}, shown.limit},
        {{"QUANTUM", true}, true},
        {{"CONCURRENCY", true}, shown.concurrency},
        {{"QUOTA", true}, true},
        {{"USED", true}, true},
        {{"PEAK", true}, true},
        {{"SHARE", true}, true},
        {{"TOTAL", true}, true},
        {{"TOKEN", false}, true},
        {{"WAITED", true}, true},
        {{"LAUNCHES", true}, true},
        {{"REFUSED", true}, true},
        {{"PROCESSES", false}, true},
    };
    size_t count = 0;
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i].shown)
            columns[count++] = all[i].column;
    return count;
}

static const struct table_column gpu_columns[] = {
    {"GPU", true}, {"MEMORY", true}, {"RESERVED", true}, {"OPEN", true}, {"UUID", false}, {"NAME", false},
};

static const char *format_bytes(char text[TEXT_BYTES], uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(text, TEXT_BYTES, "%u B", (unsigned)bytes);
        return text;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < COUNT(units); unit++)
        value /= 1024;
    // Up to MiB in whole numbers: there are no fractional chunks.
    snprintf(text, TEXT_BYTES, unit < 2 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

static const char *format_duration(char text[TEXT_BYTES], uint64_t ns)
{
    double s = (double)ns / NS_PER_S;
    if (ns == 0)
        snprintf(text, TEXT_BYTES, "0 s");
    else if (s < 1)
        snprintf(text, TEXT_BYTES, s < 0.01 ? "%.1f ms" : "%.0f ms", s * 1e3);
    else if (s < 600)
        snprintf(text, TEXT_BYTES, "%.1f s", s);
    else if (s < 6 * 3600)
        snprintf(text, TEXT_BYTES, "%.0f min", s / 60);
    else
        snprintf(text, TEXT_BYTES, "%.1f h", s / 3600);
    return text;
}

static const char *format_share(char text[TEXT_BYTES], double share)
{
    if (share < 0)
        return "-";
    snprintf(text, TEXT_BYTES, "%.1f %%", share * 100);
    return text;
}

static void add_processes(struct table *table, const struct snapshot_vgpu *vgpu)
{
    char text[PROCESSES_NAMED * 64 + 32] = "";
    size_t length = 0;
    for (size_t i = 0; i < vgpu->process_count && i < PROCESSES_NAMED; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%" PRId32 " %s", i ? ", " : "",
                                   vgpu->processes[i].pid, vgpu->processes[i].command);
    if (vgpu->process_count > PROCESSES_NAMED)
        snprintf(text + length, sizeof text - length, ", and %zu more", vgpu->process_count - PROCESSES_NAMED);
    table_add(table, "%s", text);
}

static void add_vgpu(struct table *table, const struct snapshot_vgpu *vgpu, struct shown shown)
{
    char text[TEXT_BYTES];
    table_add(table, "%" PRIu32, vgpu->gpu);
    table_add(table, "%s", vgpu->name);
    table_add(table, "%" PRIu32, vgpu->weight);
    if (shown.priority)
        table_add(table, "%s", priority_name(vgpu->priority));
    if (shown.limit && vgpu->limit_percent)
        table_add(table, "%" PRIu32 " %%", vgpu->limit_percent);
    else if (shown.limit)
        table_add(table, "none");
    if (vgpu->quantum_ns)
        table_add(table, "%.4g ms", (double)vgpu->quantum_ns / NS_PER_MS);
    else
        table_add(table, "auto");
    if (shown.concurrency)
        table_add(table, "%" PRIu32, vgpu->concurrency);
    table_add(table, "%s", vgpu->quota_bytes ? format_bytes(text, vgpu->quota_bytes) : "none");
    table_add(table, "%s", format_bytes(text, vgpu->used_bytes));
    table_add(table, "%s", format_bytes(text, vgpu->peak_bytes));
    table_add(table, "%s", format_share(text, vgpu->share_interval));
    table_add(table, "%s", format_share(text, vgpu->share_since_start));
    table_add(table, "%s", vgpu->holder ? "held" : vgpu->companion ? "beside" : vgpu->waiting ? "waits" : "-");
    table_add(table, "%s", format_duration(text, vgpu->waited_ns));
    table_add(table, "%" PRIu64, vgpu->launches);
    if (vgpu->refusals)
        table_add(table, "%" PRIu64 " (%s)", vgpu->refusals, format_bytes(text, vgpu->refused_bytes));
    else
        table_add(table, "0");
    add_processes(table, vgpu);
}

static void add_gpu(struct table *table, const struct snapshot_gpu *gpu)
{
    char text[TEXT_BYTES];
    table_add(table, "%" PRIu32, gpu->index);
    table_add(table, "%s", format_bytes(text, gpu->total_bytes));
    table_add(table, "%s", format_bytes(text, gpu->reserved_bytes));
    table_add(table, "%s", format_bytes(text, gpu->open_used_bytes));
    table_add(table, "%s", gpu->uuid);
    table_add(table, "%s", gpu->name);
}

int list_text(const struct snapshot *snapshot, FILE *out, bool colour)
{
    struct table vgpus, gpus;
    struct table_column columns[VGPU_COLUMNS];
    struct shown shown = {0};
    for (size_t i = 0; i < snapshot->vgpu_count; i++) {
        shown.priority |= snapshot->vgpus[i].priority != PRIORITY_NORMAL;
        shown.limit |= snapshot->vgpus[i].limit_percent != 0;
        shown.concurrency |= snapshot->vgpus[i].concurrency > 1;
    }
    table_init(&vgpus, columns, choose_columns(columns, shown));
    table_init(&gpus, gpu_columns, COUNT(gpu_columns));
    for (size_t i = 0; i < snapshot->vgpu_count; i++)
        add_vgpu(&vgpus, &snapshot->vgpus[i], shown);
    for (size_t i = 0; i < snapshot->gpu_count; i++)
        add_gpu(&gpus, &snapshot->gpus[i]);
    bool failed = vgpus.failed || gpus.failed;
    if (!failed) {
        table_print(&vgpus, out, colour);
        if (snapshot->gpu_count) {
            fputc('\n', out);
            table_print(&gpus, out, colour);
        }
    }
    table_clear(&vgpus);
    table_clear(&gpus);
    return failed ? -ENOMEM : 0;
}
