/* Goes on although it was stopped: SIGCONT comes from timers that were armed before. Meanwhile one
 * file is renamed to and fro between two directories, so that it always exists exactly once.
 *
 * still MODE DIRECTORY FILES: MODE is "plain" (no timers), "often" (an interval timer), "once"
 * (many timers that expire once), "other" (another process whose timers continue it, which then
 * continues its parent), "vfork" (the renaming is done by children that the parent waits for within
 * the kernel, where it can't be stopped). With a tracer, which timers continue: "traced" (it swallows
 * each signal that would stop its parent), "seized" (it lets its parent go on out of the stop of its
 * group), "stepped" (its parent goes on by one system call at a time), "bursts" (its parent stands in
 * a stop of tracing, and renames once for each expiry). */
#include "report.h"
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static timer_t timer(long first_ms, long interval_ms) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGCONT};
    struct itimerspec when = {
        .it_value = {first_ms / 1000, first_ms % 1000 * 1000000},
        .it_interval = {interval_ms / 1000, interval_ms % 1000 * 1000000},
    };
    timer_t id;
    if (timer_create(CLOCK_MONOTONIC, &event, &id) < 0 || timer_settime(id, 0, &when, NULL) < 0) {
        report("timer", -1);
        exit(1);
    }
    return id;
}

static timer_t insisting;
static volatile sig_atomic_t insists;

/* A stop takes back a SIGCONT that has not arrived yet, and with it all later expiries of its timer,
 * which starts again as its signal arrives. */
static void awake(int signal) {
    struct itimerspec when = {.it_value = {0, 60000000}, .it_interval = {0, 60000000}};
    (void)signal;
    if (insists)
        timer_settime(insisting, 0, &when, NULL);
}

/* Is continued every 60 ms, whatever stops come. */
static void insist(void) {
    insisting = timer(60, 60);
    insists = 1;
    for (int i = 1; i <= 100; i++) {
        timer(1000 * i, 0);
    }
}

static void rename_to_and_fro(void) {
    if (rename("a/token", "b/token") < 0 || rename("b/token", "a/token") < 0) {
        report("rename", -1);
        _exit(1);
    }
}

/* Its parent stands in the kernel for as long as it runs, and goes on as it ends. */
static void in_children(void) {
    for (;;) {
        if (vfork() == 0) {
            insist();
            for (int i = 0; i < 300000; i++) {
                rename_to_and_fro();
            }
            _exit(0);
        }
        int status;
        while (wait(&status) < 0) {
        }
    }
}

/* A stop of the parent's; false if a signal came instead. */
static int is_stopped(pid_t parent) {
    int status;
    return waitpid(parent, &status, __WALL) == parent && WIFSTOPPED(status);
}

/* Traces the parent, which goes on whatever it was sent. */
static void trace(pid_t parent, const char *mode) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    insist();
    int attached = strcmp(mode, "traced") == 0 ? ptrace(PTRACE_ATTACH, parent, 0, 0)
                                               : ptrace(PTRACE_SEIZE, parent, 0, 0);
    if (attached < 0) {
        report("attach", -1);
        kill(parent, SIGKILL);
        _exit(1);
    }
    int stepped = strcmp(mode, "stepped") == 0, bursts = strcmp(mode, "bursts") == 0;
    if (stepped || bursts) {
        ptrace(PTRACE_INTERRUPT, parent, 0, 0);
    }
    for (;;) {
        if (!is_stopped(parent)) {
            continue;
        }
        if (bursts) {
            /* In and out of a call and into the next: whatever the first is, it renames. Between
             * the expiries both look as if the host had stopped them. */
            raise(SIGSTOP);
            for (int stops = 0; stops < 2; stops++) {
                do {
                    ptrace(PTRACE_SYSCALL, parent, 0, 0);
                } while (!is_stopped(parent));
            }
        }
        ptrace(stepped || bursts ? PTRACE_SYSCALL : PTRACE_CONT, parent, 0, 0);
    }
}

static void fill(const char *dir, int files) {
    mkdir(dir, 0755);
    for (int i = 0; i < files; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%d", dir, i);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1) {
            report("fill", -1);
            exit(1);
        }
        close(fd);
    }
}

int main(int argc, char **argv) {
    if (argc != 4 || chdir(argv[2]) < 0) {
        return 2;
    }
    const char *mode = argv[1];
    fill("a", atoi(argv[3]));
    fill("b", atoi(argv[3]));
    close(open("a/token", O_CREAT | O_WRONLY, 0644));
    /* A timer whose signal is ignored, as SIGCONT is by default, expires only once. */
    signal(SIGCONT, awake);
    if (strcmp(mode, "often") == 0) {
        insist();
    } else if (strcmp(mode, "once") == 0) {
        for (int i = 1; i <= 400; i++) {
            timer(150 * i, 0);
        }
    } else if (strcmp(mode, "other") == 0 && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        insist();
        for (;;) {
            kill(getppid(), SIGCONT);
            usleep(1000);
        }
    } else if (strcmp(mode, "traced") == 0 || strcmp(mode, "seized") == 0 ||
               strcmp(mode, "stepped") == 0 || strcmp(mode, "bursts") == 0) {
        pid_t parent = getpid();
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
        if (fork() == 0) {
            trace(parent, mode);
        }
    }
    close(open("ready", O_CREAT | O_WRONLY, 0644));
    end();
    if (strcmp(mode, "vfork") == 0) {
        in_children();
    }
    for (;;) {
        rename_to_and_fro();
    }
}
