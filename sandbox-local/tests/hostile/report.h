/* What every hostile program shares: one line for each attempt, "NAME RESULT", and a last line
 * without which the run counts as cut short. The result is a number or the name of an errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, const char *what) {
    printf("%s %s\n", name, what);
    fflush(stdout);
}

static void say_number(const char *name, long number) {
    printf("%s %ld\n", name, number);
    fflush(stdout);
}

/* A call's result: "ok" or its errno. */
__attribute__((unused)) static void report(const char *name, long result) {
    const char *error = result < 0 ? strerrorname_np(errno) : "ok";
    say(name, error ? error : "unknown");
}

__attribute__((unused)) static void end(void) { say_number("end", 0); }

/* Runs a step in a process of its own, so that what it does to itself stays there. A signal that
 * kills it is its result. */
__attribute__((unused)) static void apart(const char *name, void (*step)(const char *)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        step(name);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    if (pid < 0) {
        report(name, -1);
        return;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        char text[32];
        snprintf(text, sizeof text, "SIG%s", sigabbrev_np(WTERMSIG(status)));
        say(name, text);
    }
}
