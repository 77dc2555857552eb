// SPDX-License-Identifier: AGPL-3.0-or-later
// The small things everything stands on: log lines and futexes.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/futex.h"
#include "base/log.h"
#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

static char path[64];

static void read_log(char *text, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t length = fd < 0 ? 0 : read(fd, text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    close(fd);
}

static void test_levels(void)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char text[8192], line[64];
    for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        unlink(path);
        log_configure((enum log_level)level, path);
        log_error("one");
        log_warn("two");
        log_info("three");
        log_debug("four");
        read_log(text, sizeof text);
        for (int i = 0; i < 4; i++) {
            snprintf(line, sizeof line, "vgpu[%d]: %s: ", (int)getpid(), names[i]);
            is_int(strstr(text, line) != NULL, i <= level, "at level %s, %s is %s", names[level], names[i],
                   i <= level ? "said" : "not said");
        }
    }
}

static void test_file(void)
{
    char text[8192];
    struct stat status;
    mode_t mask = umask(0);
    unlink(path);
    log_configure(LOG_INFO, path);
    errno = 77;
    log_info("first %d", 1);
    is_int(errno, 77, "errno is left alone");
    log_info("second");
    umask(mask);
    stat(path, &status);
    is_int(status.st_mode & 07777, 0600, "the file has mode 0600 whatever the umask");
    read_log(text, sizeof text);
    ok(strstr(text, "first 1\n") && strstr(text, "second\n"), "messages are appended");
    unlink(path);
    log_info("a name with\na line, a \033[31mcolour and \x7f in it");
    read_log(text, sizeof text);
    ok(strchr(text, '\n') == text + strlen(text) - 1, "a message is one line, whatever is in it");
    ok(!strchr(text, '\033') && strstr(text, "a line, a ?[31mcolour and ? in it"), "and steers no terminal: %s", text);
    static char longer[4096];
    memset(longer, 'x', sizeof longer - 1);
    unlink(path);
    log_info("%s", longer);
    read_log(text, sizeof text);
    ok(strlen(text) < 1100 && text[strlen(text) - 1] == '\n' && strchr(text, '\n') == text + strlen(text) - 1,
       "a long message is cut, and ends its line");
}

static int write_lines(void *argument)
{
    for (int i = 0; i < 300; i++)
        log_info("writer %d says %0200d", (int)(uintptr_t)argument, i);
    return 0;
}

static void test_whole_lines(void)
{
    pid_t pids[4];
    int lines = 0, broken = 0;
    char line[1024];
    unlink(path);
    for (uintptr_t i = 0; i < 4; i++)
        pids[i] = spawn(write_lines, (void *)i);
    for (int i = 0; i < 4; i++)
        exit_status(pids[i]);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        int writer, number, pid;
        lines++;
        broken +=
            sscanf(line, "vgpu[%d]: info: writer %d says %d", &pid, &writer, &number) != 3 || line[strlen(line) - 1] != '\n';
    }
    if (file)
        fclose(file);
    is_int(lines, 1200, "four processes write 300 lines each");
    is_int(broken, 0, "no line is broken up by another");
}

static int log_to_closed_pipe(void *unused)
{
    int ends[2];
    (void)unused;
    if (pipe(ends) || dup2(ends[1], STDERR_FILENO) < 0)
        return 1;
    close(ends[0]);
    log_configure(LOG_INFO, NULL);
    log_info("nobody reads this");
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) ? 2 : 0;
}

static int log_to_stderr(void *unused)
{
    (void)unused;
    if (freopen(path, "w", stderr) == NULL)
        return 1;
    log_configure(LOG_INFO, "/nonexistent/log");
    log_info("fell back");
    return 0;
}

static int log_to_fifo(void *unused)
{
    (void)unused;
    if (freopen("/dev/null", "w", stderr) == NULL)
        return 1;
    log_configure(LOG_INFO, path);
    log_info("nobody reads this");
    return 0;
}

static int log_without_stderr(void *unused)
{
    (void)unused;
    close(STDERR_FILENO);
    log_configure(LOG_INFO, path);
    log_info("no stderr");
    return fcntl(STDERR_FILENO, F_GETFD) >= 0;
}

static void test_sinks(void)
{
    char text[256];
    unlink(path);
    is_int(exit_status(spawn(log_without_stderr, NULL)), 0, "where the program has closed its stderr, it stays closed");
    read_log(text, sizeof text);
    ok(strstr(text, "no stderr") != NULL, "and the message is in the file");
    unlink(path);
    is_int(exit_status(spawn(log_to_closed_pipe, NULL)), 0, "a message that nobody reads does not kill the program");
    is_int(exit_status(spawn(log_to_stderr, NULL)), 0, "where the file cannot be opened");
    read_log(text, sizeof text);
    ok(strstr(text, "fell back") != NULL, "the message goes to stderr");
    unlink(path);
    if (mkfifo(path, 0600) == 0)
        is_int(exit_status(spawn(log_to_fifo, NULL)), 0, "a FIFO without a reader is not waited for");
    unlink(path);
}

static void *wake_later(void *argument)
{
    _Atomic uint32_t *word = (_Atomic uint32_t *)argument;
    atomic_store(word, 1);
    futex_wake(word, 2);
    return NULL;
}

static void test_futex(void)
{
    static _Atomic uint32_t word;
    is_int(futex_wait(&word, 5, FUTEX_EVERYONE, clock_now_ns() + 10 * NS_PER_S), -EAGAIN,
           "a word that differs is not slept on");
    is_int(futex_wait(&word, 0, FUTEX_EVERYONE, clock_now_ns()), -ETIMEDOUT, "a deadline that has passed ends a wait");
    is_int(futex_wait(&word, 0, FUTEX_EVERYONE, 0), -ETIMEDOUT, "also one long ago");
    pthread_t thread;
    pthread_create(&thread, NULL, wake_later, (void *)&word);
    int rc = 0;
    while (atomic_load(&word) == 0)
        rc = futex_wait(&word, 0, 3, clock_now_ns() + 10 * NS_PER_S);
    pthread_join(thread, NULL);
    ok(rc == 0 || rc == -EAGAIN, "a wake with one of its bits ends a wait");
}

int main(void)
{
    snprintf(path, sizeof path, "/dev/shm/vgpu-test-log.%d", (int)getpid());
    test_levels();
    test_file();
    test_whole_lines();
    test_sinks();
    test_futex();
    unlink(path);
    return done_testing();
}
