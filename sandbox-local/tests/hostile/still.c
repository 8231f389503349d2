/* Goes on although it was stopped: SIGCONT comes from timers that were armed before. Meanwhile one
 * file is renamed to and fro between two directories, so that it always exists exactly once.
 *
 * still MODE DIRECTORY FILES: MODE is "plain" (no timers), "often" (an interval timer), "once"
 * (many timers that expire once), "other" (another process whose timers continue it, which then
 * continues its parent), "vfork" (the renaming is done by children that the parent waits for within
 * the kernel, where it can't be stopped). */
#include "report.h"
#include <sys/prctl.h>
#include <sys/wait.h>

static void timer(long first_ms, long interval_ms) {
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
}

static void awake(int signal) { (void)signal; }

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
            timer(60, 60);
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
        timer(60, 60);
    } else if (strcmp(mode, "once") == 0) {
        for (int i = 1; i <= 400; i++) {
            timer(150 * i, 0);
        }
    } else if (strcmp(mode, "other") == 0 && fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        timer(60, 60);
        for (;;) {
            kill(getppid(), SIGCONT);
            usleep(1000);
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
