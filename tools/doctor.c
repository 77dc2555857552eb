// SPDX-License-Identifier: AGPL-3.0-or-later
#include "tools/doctor.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/line.h"
#include "base/version.h"
#include "options/aliases.h"
#include "tools/command.h"

// A driver that has to wake its GPU takes seconds; one that takes longer than this hangs.
#define CHILD_PATIENCE_NS (60 * NS_PER_S)
#define MAX_FINDINGS 128
#define TEXT_BYTES 512

struct finding {
    enum doctor_status status;
    char check[32], text[TEXT_BYTES];
};

static struct finding findings[MAX_FINDINGS];
static size_t finding_count;
static bool is_child; // findings go to the parent

static const char *const words[] = {[DOCTOR_OK] = "ok", [DOCTOR_WARN] = "warn", [DOCTOR_FAIL] = "FAIL"};

// Prefix of what a child says through its pipe; everything else there comes from what it loaded.
#define CHILD_MARK '\1'

static void add(enum doctor_status status, const char *check, const char *text)
{
    if (finding_count < MAX_FINDINGS) {
        struct finding *finding = &findings[finding_count++];
        finding->status = status;
        snprintf(finding->check, sizeof finding->check, "%.31s", check);
        snprintf(finding->text, sizeof finding->text, "%.511s", text);
    }
}

void doctor_say(enum doctor_status status, const char *check, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    line_clean(text);
    if (is_child)
        dprintf(STDOUT_FILENO, "%c%d\t%s\t%s\n", CHILD_MARK, status, check, text);
    else
        add(status, check, text);
}

// The checks that run in a child, which is this command again.
static const struct probe {
    const char *name;
    void (*run)(void);
    bool under_library;
} probes[] = {{"driver", doctor_driver, false}, {"doors", doctor_doors, true}};

// Never returns. The parent's environment without the options, which are checked separately; if under the library, with a pool
// of its own.
static void become_probe(const struct probe *probe, int out, const char *library, const char *pool)
{
    for (int id = 0; id < OPTION_COUNT; id++)
        unsetenv(option_table[id].variable);
    aliases_forget();
    unsetenv("LD_PRELOAD");
    if (probe->under_library) {
        setenv("LD_PRELOAD", library, 1);
        setenv(option_table[OPTION_POOL].variable, pool, 1);
        setenv(option_table[OPTION_LOG].variable, "error", 1);
    }
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execl("/proc/self/exe", "vgpu", "doctor", "--probe", probe->name, (char *)NULL);
    dprintf(STDERR_FILENO, "this command does not find itself (%s): /proc must be mounted\n", strerror(errno));
    _exit(STATUS_FAILED);
}

// Takes one line from a child. `said` keeps the last one that was not a finding, unless a failure has been told with it.
static void take_line(char *line, char said[TEXT_BYTES])
{
    int status = line[0] == CHILD_MARK ? line[1] - '0' : -1;
    char *check = status >= DOCTOR_OK && status <= DOCTOR_FAIL && line[2] == '\t' ? line + 3 : NULL;
    char *tab = check ? strchr(check, '\t') : NULL;
    if (tab) {
        char text[2 * TEXT_BYTES];
        bool tell = status == DOCTOR_FAIL && said[0];
        snprintf(text, sizeof text, "%.511s%s%.400s", tab + 1, tell ? ": " : "", tell ? said : "");
        line_clean(text);
        *tab = '\0';
        add((enum doctor_status)status, check, text);
        if (tell)
            said[0] = '\0';
    } else {
        snprintf(said, TEXT_BYTES, "%.511s", line);
    }
}

// Reads until the child closes its end. False: it did not in time.
static bool take_findings(int in, char said[TEXT_BYTES])
{
    char line[2 * TEXT_BYTES];
    size_t length = 0;
    uint64_t deadline = clock_now_ns() + CHILD_PATIENCE_NS;
    for (;;) {
        uint64_t now = clock_now_ns();
        struct pollfd ready = {.fd = in, .events = POLLIN};
        int rc = now < deadline ? poll(&ready, 1, (int)((deadline - now) / NS_PER_MS) + 1) : 0;
        if (rc == 0)
            return false;
        char c;
        ssize_t got = rc > 0 ? read(in, &c, 1) : -1;
        if (got == 0)
            return true;
        if (got < 0)
            continue; // interrupted
        if (c != '\n' && length < sizeof line - 1) {
            line[length++] = c;
        } else if (c == '\n') {
            line[length] = '\0';
            length = 0;
            take_line(line, said);
        }
    }
}

// Runs one in a child, with a pool at this path if it is under the library.
static void run_probe(const struct probe *probe, const char *library, const char *pool)
{
    int ends[2], status = 0;
    char said[TEXT_BYTES] = "";
    if (pipe(ends) < 0) {
        doctor_say(DOCTOR_FAIL, probe->name, "cannot be checked: no pipe: %s", strerror(errno));
        return;
    }
    size_t before = finding_count;
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        become_probe(probe, ends[1], library, pool);
    }
    if (child < 0)
        snprintf(said, sizeof said, "no child: %s", strerror(errno));
    close(ends[1]);
    bool hangs = child > 0 && !take_findings(ends[0], said);
    const char *last = finding_count > before ? findings[finding_count - 1].check : "the start";
    if (hangs)
        kill(child, SIGKILL);
    close(ends[0]);
    if (child > 0)
        waitpid(child, &status, 0);
    if (hangs)
        doctor_say(DOCTOR_FAIL, probe->name, "no answer after '%s': the GPU or its driver hangs", last);
    else if (child > 0 && WIFSIGNALED(status))
        doctor_say(DOCTOR_FAIL, probe->name, "crashed after '%s': %s%s%s", last, strsignal(WTERMSIG(status)),
                   said[0] ? ", having said: " : "", said);
    else if (finding_count == before)
        doctor_say(DOCTOR_FAIL, probe->name, "cannot be checked%s%s", said[0] ? ": " : "", said);
}

// The same in a folder that is gone afterwards: where pools usually are or, if that is no place for one, where temporary files
// are.
static void run_probe_in_folder(const struct probe *probe, const char *library)
{
    char folder[] = "/dev/shm/vgpu-doctor.XXXXXX", other[] = "/tmp/vgpu-doctor.XXXXXX", pool[sizeof folder + sizeof "/pool"];
    const char *made = mkdtemp(folder);
    made = made ? made : mkdtemp(other);
    if (!made) {
        doctor_say(DOCTOR_FAIL, probe->name, "cannot be checked: no folder can be made in /dev/shm or /tmp: %s",
                   strerror(errno));
        return;
    }
    snprintf(pool, sizeof pool, "%s/pool", made);
    run_probe(probe, library, pool);
    unlink(pool);
    rmdir(made);
}

static enum doctor_status worst(void)
{
    enum doctor_status status = DOCTOR_OK;
    for (size_t i = 0; i < finding_count; i++)
        if (findings[i].status > status)
            status = findings[i].status;
    return status;
}

static void print_text(void)
{
    for (size_t i = 0; i < finding_count; i++)
        printf("%-4s  %s: %s\n", words[findings[i].status], findings[i].check, findings[i].text);
}

static int print_json(void)
{
    cJSON *root = cJSON_CreateObject(), *checks = root ? cJSON_AddArrayToObject(root, "checks") : NULL;
    bool made = checks && cJSON_AddStringToObject(root, "version", VGPU_VERSION) &&
                cJSON_AddStringToObject(root, "status", words[worst()]);
    for (size_t i = 0; i < finding_count && made; i++) {
        cJSON *check = cJSON_CreateObject();
        made = check && cJSON_AddItemToArray(checks, check) && cJSON_AddStringToObject(check, "check", findings[i].check) &&
               cJSON_AddStringToObject(check, "status", words[findings[i].status]) &&
               cJSON_AddStringToObject(check, "text", findings[i].text);
    }
    char *text = made ? cJSON_Print(root) : NULL;
    if (text)
        puts(text);
    else
        complain("vgpu doctor", "out of memory");
    cJSON_free(text);
    cJSON_Delete(root);
    return text ? STATUS_OK : STATUS_FAILED;
}

void doctor_details(void)
{
    puts(
        "  --json         print one JSON object instead of lines\n\n"
        "One line for each check: 'ok', 'warn' for what works at a cost, 'FAIL' for what keeps programs from running on virtual\n"
        "GPUs or lets them exceed their limits. Nothing is changed. Exit status: 1 if a line says FAIL, else 0.");
}

static int run_child(const char *name)
{
    is_child = true;
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++)
        if (strcmp(probes[i].name, name) == 0)
            probes[i].run();
    return STATUS_OK;
}

int command_doctor(int argc, char **argv)
{
    static const struct option flags[] = {{"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"probe", required_argument, NULL, 'p'},
                                          {0}};
    bool json = false;
    for (int flag; (flag = getopt_long(argc, argv, "h", flags, NULL)) != -1;) {
        if (flag == 'h') {
            help_command(command_find("doctor"));
            return STATUS_OK;
        }
        if (flag == 'p') // this command's own
            return run_child(optarg);
        if (flag != 'j')
            return usage_hint(argv[0]);
        json = true;
    }
    if (argv[optind]) {
        complain(argv[0], "unexpected argument '%s'", argv[optind]);
        return usage_hint(argv[0]);
    }

    char library[PATH_MAX];
    struct error error;
    doctor_machine();
    doctor_options();
    doctor_pool();
    run_probe(&probes[0], NULL, NULL);
    if (run_find_library(library, &error)) {
        doctor_say(DOCTOR_FAIL, "library", "%s", error.text);
    } else {
        doctor_say(DOCTOR_OK, "library", "%s", library);
        run_probe_in_folder(&probes[1], library);
    }
    int status = worst() == DOCTOR_FAIL ? STATUS_FAILED : STATUS_OK;
    if (json)
        status = print_json() == STATUS_OK ? status : STATUS_FAILED;
    else
        print_text();
    return finish_output(argv[0], status);
}
