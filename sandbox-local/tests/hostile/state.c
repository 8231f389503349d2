/* Tells what a process starts with ("show"), and starts a program with as much of that changed as
 * its user may change ("ugly PROGRAM ..."). */
#include "report.h"
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const struct {
    const char *name;
    int resource;
    rlim_t soft;
} limits[] = {
    {"as", RLIMIT_AS, 64UL << 30},     {"core", RLIMIT_CORE, 1 << 20},
    {"cpu", RLIMIT_CPU, 3000},         {"data", RLIMIT_DATA, 60UL << 30},
    {"fsize", RLIMIT_FSIZE, 1 << 30},  {"locks", RLIMIT_LOCKS, 77},
    {"memlock", RLIMIT_MEMLOCK, 4096}, {"nice", RLIMIT_NICE, 0},
    {"rss", RLIMIT_RSS, 1 << 30},      {"rtprio", RLIMIT_RTPRIO, 0},
    {"rttime", RLIMIT_RTTIME, 999999}, {"stack", RLIMIT_STACK, 2 << 20},
};

static void show_limit(const char *name, const char *which, rlim_t value) {
    char text[64];
    snprintf(text, sizeof text, "%s_%s", name, which);
    say_number(text, value == RLIM_INFINITY ? -1 : (long)value);
}

/* A line of a file of /proc, from the first match on; "-" if there is none. */
static void show_line(const char *name, const char *path, const char *prefix) {
    char line[4096];
    FILE *file = fopen(path, "r");
    const char *found = "-";
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, prefix)) {
            line[strcspn(line, "\n")] = 0;
            found = line;
            break;
        }
    say(name, found);
    if (file)
        fclose(file);
}

static void show(void) {
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        getrlimit(limits[i].resource, &limit);
        show_limit(limits[i].name, "soft", limit.rlim_cur);
        show_limit(limits[i].name, "hard", limit.rlim_max);
    }
    say_number("nice", getpriority(PRIO_PROCESS, 0));
    say_number("policy", sched_getscheduler(0));
    say_number("ioprio", syscall(SYS_ioprio_get, 1, 0));
    mode_t mask = umask(0);
    umask(mask);
    say_number("umask", mask);
    say_number("groups", getgroups(0, NULL));
    show_line("blocked", "/proc/self/status", "SigBlk:");
    show_line("ignored", "/proc/self/status", "SigIgn:");
    show_line("oom", "/proc/self/oom_score_adj", "");
    show_line("init_oom", "/proc/1/oom_score_adj", "");
    show_line("key", "/proc/keys", "hostile-ugly");
    /* What a guest may raise again. */
    struct sched_param real_time = {.sched_priority = 1};
    report("real_time", sched_setscheduler(0, SCHED_FIFO, &real_time));
    report("negative_nice", setpriority(PRIO_PROCESS, 0, -1));
}

static void ugly(char **program) {
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        getrlimit(limits[i].resource, &limit);
        if (limits[i].soft < limit.rlim_max)
            limit.rlim_cur = limits[i].soft;
        setrlimit(limits[i].resource, &limit);
    }
    /* Rights that root may give. */
    setrlimit(RLIMIT_RTPRIO, &(struct rlimit){50, 50});
    setrlimit(RLIMIT_NICE, &(struct rlimit){40, 40});
    setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
    setpriority(PRIO_PROCESS, 0, -5);
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
    if (syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 4) < 0) /* real time, or best effort */
        syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 0);
    int oom = open("/proc/self/oom_score_adj", O_WRONLY);
    if (write(oom, "-900", 4) < 0)
        dprintf(oom, "7");
    close(oom);
    setgroups(2, (gid_t[]){4, 27});
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "hostile-ugly");
    syscall(SYS_add_key, "user", "hostile-ugly-key", "x", 1, KEY_SPEC_SESSION_KEYRING);
    umask(077);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR1);
    sigprocmask(SIG_BLOCK, &some, NULL);
    execv(program[0], program);
    perror(program[0]);
    _exit(1);
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "ugly"))
        ugly(argv + 2);
    show();
    end();
}
