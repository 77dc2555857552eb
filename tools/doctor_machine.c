// SPDX-License-Identifier: AGPL-3.0-or-later
// What can be told about the machine without its driver.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "options/aliases.h"
#include "tools/doctor.h"

// glibc is new enough, or this command would not have started.
static void check_system(void)
{
    struct utsname name;
    uname(&name);
    doctor_say(DOCTOR_OK, "system", "glibc %s, Linux %s, %s", gnu_get_libc_version(), name.release, name.machine);
}

// The CUDA_VERSION that a toolkit's header defines, 0 if none.
static unsigned toolkit_version(const char *home)
{
    char path[PATH_MAX], line[256];
    unsigned version = 0;
    snprintf(path, sizeof path, "%s/include/cuda.h", home);
    FILE *header = fopen(path, "re");
    while (header && version == 0 && fgets(line, sizeof line, header)) {
        if (strncmp(line, "#define CUDA_VERSION ", 21) == 0)
            version = (unsigned)strtoul(line + 21, NULL, 10);
    }
    if (header)
        fclose(header);
    return version;
}

static void check_toolkit(void)
{
    const char *const homes[] = {getenv("CUDA_HOME"), "/usr/local/cuda", "/usr"};
    for (size_t i = 0; i < sizeof homes / sizeof homes[0]; i++) {
        unsigned version = homes[i] ? toolkit_version(homes[i]) : 0;
        if (version) {
            doctor_say(DOCTOR_OK, "toolkit", "CUDA %u.%u in %s", version / 1000, version % 1000 / 10, homes[i]);
            return;
        }
    }
    doctor_say(DOCTOR_OK, "toolkit", "none; only building needs one");
}

// The device files, on one line if all are in order.
static void check_device_files(void)
{
    static const char *const others[] = {"nvidiactl", "nvidia-uvm"};
    DIR *directory = opendir("/dev");
    unsigned gpus = 0, shut = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char path[PATH_MAX];
        bool gpu = strncmp(entry->d_name, "nvidia", 6) == 0 && strspn(entry->d_name + 6, "0123456789") > 0;
        bool wanted = gpu;
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            wanted |= strcmp(entry->d_name, others[i]) == 0;
        if (!wanted)
            continue;
        gpus += gpu;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        if (access(path, R_OK | W_OK) < 0) {
            shut++;
            doctor_say(DOCTOR_FAIL, "device files", "%s: %s: give access to this user, or to one of its groups", path,
                       strerror(errno));
        }
    }
    if (directory)
        closedir(directory);
    if (gpus == 0)
        doctor_say(
            DOCTOR_WARN, "device files",
            "no /dev/nvidia0: load NVIDIA's kernel module, or start this container with its GPUs (docker run --gpus all)");
    else if (shut == 0)
        doctor_say(DOCTOR_OK, "device files", "%u GPU%s, open to this user", gpus, gpus == 1 ? "" : "s");
}

static void check_container(void)
{
    const char *kind = access("/.dockerenv", F_OK) == 0          ? "Docker"
                       : access("/run/.containerenv", F_OK) == 0 ? "Podman"
                       : getenv("KUBERNETES_SERVICE_HOST")       ? "Kubernetes"
                                                                 : getenv("container");
    if (kind)
        doctor_say(
            DOCTOR_OK, "container",
            "%s: programs in other containers count only if they use the same pool (mount one folder into all, and set %s)",
            kind, option_table[OPTION_POOL].variable);
}

// What VGPU_CONCURRENCY says; 0 if it is not set, or not understood, which doctor_options tells.
static uint32_t wanted_concurrency(void)
{
    static struct options options;
    struct error ignored;
    const char *text = getenv(option_table[OPTION_CONCURRENCY].variable);
    options_defaults(&options);
    if (text)
        options_parse(&options, OPTION_CONCURRENCY, text, &ignored);
    return options.concurrency;
}

static void check_mps(void)
{
    uint32_t concurrency = wanted_concurrency();
    const char *directory = getenv("CUDA_MPS_PIPE_DIRECTORY");
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/control", directory ? directory : "/tmp/nvidia-mps");
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        doctor_say(DOCTOR_OK, "mps", "its daemon runs: one program's fault ends all programs that are its clients");
    else if (errno == ENXIO)
        doctor_say(DOCTOR_WARN, "mps",
                   "%s exists, with no daemon behind it: remove its folder, or start nvidia-cuda-mps-control -d", path);
    else if (errno != ENOENT && errno != ENOTDIR)
        doctor_say(DOCTOR_WARN, "mps", "%s: %s: this user's programs cannot be its clients", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    else if (concurrency > 1)
        doctor_say(DOCTOR_WARN, "mps",
                   "%s=%u is of no use between programs without MPS, since the driver slices the time between them: start "
                   "nvidia-cuda-mps-control -d, or leave it out",
                   option_table[OPTION_CONCURRENCY].variable, concurrency);
}

void doctor_machine(void)
{
    check_system();
    check_toolkit();
    check_container();
    check_device_files();
    check_mps();
}

static void tell_alias(const char *alias, const char *value, const char *option, bool used)
{
    if (used)
        doctor_say(DOCTOR_OK, "options", "%s=%s is taken as %s", alias, value, option);
    else
        doctor_say(DOCTOR_WARN, "options", "%s is ignored, since %s is set: unset one of them", alias, option);
}

void doctor_options(void)
{
    static struct options options;
    struct error error;
    unsigned given = 0;
    if (options_from_environment(&options, &error)) {
        doctor_say(DOCTOR_FAIL, "options", "%s", error.text);
        return;
    }
    aliases_tell(&options, tell_alias);
    const char *unknown = options_unknown_variable();
    if (unknown)
        doctor_say(DOCTOR_WARN, "options", "%.*s is not an option of this version and has no effect: see vgpu help env",
                   (int)strcspn(unknown, "="), unknown);
    for (int id = 0; id < OPTION_COUNT; id++)
        given += options.given[id];
    if (!options.given[OPTION_MEMORY] && options.require_quota)
        doctor_say(DOCTOR_FAIL, "options", "%s=1 and no %s: programs started from here are refused",
                   option_table[OPTION_REQUIRE_QUOTA].variable, option_table[OPTION_MEMORY].variable);
    else if (!unknown)
        doctor_say(DOCTOR_OK, "options", "%u set in the environment, all understood", given);
}
