// SPDX-License-Identifier: AGPL-3.0-or-later
// vgpu list: the virtual GPUs of a pool, once or repeatedly.
#include "tools/list.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/line.h"
#include "options/options.h"
#include "pool/pool.h"
#include "tools/command.h"
#include "tools/screen.h"

#define DEFAULT_SECONDS 1.0
#define SHORTEST_WATCH_SECONDS 0.1
#define LONGEST_SECONDS 3600.0

struct list_options {
    bool json, watch, interval_given;
    double seconds; // between two snapshots; 0: take only one
    const char *pool;
};

void list_details(void)
{
    puts(
        "  --json               print one JSON object; with --watch, one per line\n"
        "  --watch[=SECONDS]    show it again every SECONDS (1), until Ctrl-C\n"
        "  --interval SECONDS   measure SHARE over this time (1); 0 omits SHARE and answers at once\n"
        "  --pool PATH          the pool to look at (VGPU_POOL, or the default pool)\n\n"
        "SHARE is the part of the interval for which a virtual GPU had the GPU, TOTAL the same since it began. A GPU's RESERVED\n"
        "memory is the sum of the quotas on it, OPEN what virtual GPUs without a quota use.\n"
        "Exit status: 0, even if there is nothing to show; 1 if the pool cannot be read; 2 if an option is not understood.");
}

static bool parse_seconds(const char *text, double least, double *seconds)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < least || value > LONGEST_SECONDS)
        return false;
    *seconds = value;
    return true;
}

// Returns 0, or the exit status after writing the message. `help` is set if help was asked for.
static int parse_arguments(int argc, char **argv, struct list_options *list, bool *help)
{
    static const struct option flags[] = {
        {"json", no_argument, NULL, 'j'},           {"watch", optional_argument, NULL, 'w'},
        {"interval", required_argument, NULL, 'i'}, {"pool", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},           {0},
    };
    for (int flag; (flag = getopt_long(argc, argv, "h", flags, NULL)) != -1;) {
        switch (flag) {
        case 'j':
            list->json = true;
            break;
        case 'w':
            list->watch = true;
            if (optarg && !parse_seconds(optarg, SHORTEST_WATCH_SECONDS, &list->seconds)) {
                complain(argv[0], "--watch=%s is not understood: allowed is a number of seconds from 0.1 to 3600", optarg);
                return STATUS_USAGE;
            }
            break;
        case 'i':
            list->interval_given = true;
            if (!optarg || !parse_seconds(optarg, 0, &list->seconds)) {
                complain(argv[0], "--interval=%s is not understood: allowed is a number of seconds from 0 to 3600", optarg);
                return STATUS_USAGE;
            }
            break;
        case 'p':
            list->pool = optarg;
            break;
        case 'h':
            *help = true;
            return STATUS_OK;
        default:
            return usage_hint(argv[0]);
        }
    }
    if (argv[optind]) {
        complain(argv[0], "unexpected argument '%s'", argv[optind]);
        return usage_hint(argv[0]);
    }
    if (list->watch && list->interval_given) {
        complain(argv[0],
                 "--interval cannot be combined with --watch, which measures from one output to the next: use --watch=SECONDS");
        return STATUS_USAGE;
    }
    return STATUS_OK;
}

static int take(const char *name, struct snapshot *snapshot, const char *path)
{
    struct error error;
    int rc = snapshot_take(snapshot, path, &error);
    // A pool that was replaced between opening and asking is there again under its name.
    if (rc == -ESTALE) {
        snapshot_clear(snapshot);
        rc = snapshot_take(snapshot, path, &error);
    }
    if (rc)
        complain(name, "%s", error.text);
    return rc ? STATUS_FAILED : STATUS_OK;
}

static int print(const char *name, const struct list_options *list, const struct snapshot *snapshot)
{
    int rc = list->json ? list_json(snapshot, stdout, !list->watch) : list_text(snapshot, stdout, screen_colour());
    if (rc == 0)
        return finish_output(name, STATUS_OK);
    complain(name, "%s", strerror(-rc));
    return STATUS_FAILED;
}

// Says why there is nothing to show, in one line whatever the path contains.
static void explain_nothing(const struct snapshot *snapshot, FILE *out)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", snapshot->path);
    line_clean(path);
    if (!snapshot->exists)
        fprintf(out, "no pool at %s: nothing has run under vgpu\n", path);
    else if (snapshot->vgpu_count == 0)
        fprintf(out, "no virtual GPU in the pool %s\n", path);
}

static int show_picture(const char *name, const struct snapshot *snapshot)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    int rc = out ? list_text(snapshot, out, screen_colour()) : -ENOMEM;
    if (out && snapshot->vgpu_count == 0) {
        fputc('\n', out);
        explain_nothing(snapshot, out);
    }
    if (out && fclose(out) != 0)
        rc = -ENOMEM;
    if (rc == 0)
        rc = screen_show(text);
    if (out)
        free(text);
    if (rc)
        complain(name, "cannot write the output: %s", strerror(-rc));
    return rc ? STATUS_FAILED : STATUS_OK;
}

static int append(const char *name, const struct list_options *list, const struct snapshot *snapshot)
{
    int status = print(name, list, snapshot);
    if (!list->json && status == STATUS_OK)
        putchar('\n');
    return status;
}

static int watch(const char *name, const struct list_options *list, const char *path, struct snapshot snapshots[2])
{
    uint64_t period_ns = (uint64_t)(list->seconds * NS_PER_S), next_ns = clock_now_ns() + period_ns;
    bool pictures = !list->json && screen_usable();
    int current = 0, status = take(name, &snapshots[current], path);
    if (status)
        return status;
    screen_open(pictures);
    if (pictures)
        status = show_picture(name, &snapshots[current]);
    while (status == STATUS_OK) {
        enum screen_event event = screen_wait(next_ns);
        if (event == SCREEN_STOP)
            break;
        if (event == SCREEN_RESIZED) {
            if (pictures)
                status = show_picture(name, &snapshots[current]);
            continue;
        }
        uint64_t now_ns = clock_now_ns();
        // After a stop or a long suspension, go on from now rather than catch up.
        next_ns = next_ns + period_ns > now_ns ? next_ns + period_ns : now_ns + period_ns;
        const struct snapshot *before = &snapshots[current];
        current = !current;
        snapshot_clear(&snapshots[current]);
        status = take(name, &snapshots[current], path);
        if (status)
            break;
        snapshot_compare(&snapshots[current], before);
        status = pictures ? show_picture(name, &snapshots[current]) : append(name, list, &snapshots[current]);
    }
    screen_close();
    return status;
}

static int once(const char *name, const struct list_options *list, const char *path, struct snapshot snapshots[2])
{
    int current = 0, status = take(name, &snapshots[current], path);
    if (status)
        return status;
    // Nothing there, nothing to measure.
    if (list->seconds > 0 && snapshots[0].vgpu_count) {
        struct timespec pause = clock_timespec((uint64_t)(list->seconds * NS_PER_S));
        while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
            continue;
        current = 1;
        status = take(name, &snapshots[current], path);
        if (status)
            return status;
        snapshot_compare(&snapshots[1], &snapshots[0]);
    }
    status = print(name, list, &snapshots[current]);
    if (!list->json && status == STATUS_OK)
        explain_nothing(&snapshots[current], stderr);
    return status;
}

int command_list(int argc, char **argv)
{
    struct list_options list = {.seconds = DEFAULT_SECONDS};
    bool help = false;
    char path[PATH_MAX];
    int status = parse_arguments(argc, argv, &list, &help);
    if (status)
        return status;
    if (help) {
        help_command(command_find("list"));
        return STATUS_OK;
    }
    status = choose_pool(argv[0], list.pool, path);
    if (status)
        return status;
    static struct snapshot snapshots[2];
    status = list.watch ? watch(argv[0], &list, path, snapshots) : once(argv[0], &list, path, snapshots);
    snapshot_clear(&snapshots[0]);
    snapshot_clear(&snapshots[1]);
    return status;
}
