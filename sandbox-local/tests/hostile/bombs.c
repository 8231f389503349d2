/* Uses up what there is, and refuses to end. */
#include "report.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void *forever(void *unused) {
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static void fork_bomb(void) {
    for (;;)
        fork();
}

/* Forks until it is refused, and keeps all. */
static void fork_many(void) {
    long made = 0;
    for (pid_t pid; (pid = fork()) >= 0; made++)
        if (pid == 0) {
            setsid();
            forever(NULL);
        }
    say("refused", strerrorname_np(errno));
    say_number("made", made);
}

static void threads(void) {
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 16384);
    long made = 0;
    while (pthread_create(&thread, &attr, forever, NULL) == 0)
        made++;
    say_number("made", made);
}

static void memory(void) {
    for (long size = 0;; size++) {
        char *block = malloc(1 << 20);
        if (!block)
            break;
        memset(block, 1, 1 << 20);
    }
    say("refused", "malloc");
}

/* So much memory and no more: safe where nothing limits it. */
static void touch(long size) {
    /* Not by memset: nothing reads it, so that a compiler leaves it out. */
    volatile char *block = malloc(size);
    for (long at = 0; block && at < size; at += 4096)
        block[at] = 1;
    report("touch", block ? 0 : -1);
}

static void fill(const char *path, long limit) {
    static char block[1 << 20];
    long written = 0;
    memset(block, 1, sizeof block);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    for (ssize_t n; written < limit && (n = write(fd, block, sizeof block)) > 0;)
        written += n;
    report("fill", written < limit ? -1 : 0);
    say_number("written", written);
}

static void inodes(long limit) {
    long made = 0;
    mkdir("inodes", 0755);
    for (; made < limit; made++) {
        char name[64];
        snprintf(name, sizeof name, "inodes/%ld", made);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0)
            break;
        close(fd);
    }
    report("inodes", made < limit ? -1 : 0);
    say_number("made", made);
}

static void files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    long made = 0;
    while (open("/dev/null", O_RDONLY) >= 0)
        made++;
    printf("refused %s\n", strerrorname_np(errno));
    say_number("made", made);
}

static void zombies(void) {
    long made = 0;
    for (pid_t pid; (pid = fork()) >= 0; made++)
        if (pid == 0)
            _exit(0);
    say_number("made", made);
}

/* Leaves a daemon that left session and group, ignores what can be ignored, and holds nothing. */
static void daemonize(const char *mark, int hold) {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            for (int number = 1; number < 65; number++)
                signal(number, SIG_IGN);
            if (!hold)
                for (int fd = 0; fd < 3; fd++)
                    close(fd);
            prctl(PR_SET_NAME, mark);
            forever(NULL);
        }
        _exit(0);
    }
    while (wait(NULL) > 0) {
    }
}

static void tree(int depth) {
    for (int i = 0; depth > 0 && i < 3; i++)
        if (fork() == 0) {
            signal(SIGTERM, SIG_IGN);
            tree(depth - 1);
            if (depth & 1)
                raise(SIGSTOP);
            forever(NULL);
        }
}

static void lines(long count) {
    static char block[1 << 16];
    for (size_t i = 0; i < sizeof block; i += 2)
        block[i] = 'x', block[i + 1] = '\n';
    /* One byte and a newline, a write each: the worst for who reads. */
    for (long i = 0; i < count; i++)
        if (write(1, block, 2) < 0)
            _exit(1);
}

static void flood(long bytes) {
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    for (long sent = 0; sent < bytes;) {
        ssize_t n = write(1, block, sizeof block);
        if (n < 0)
            _exit(1);
        sent += n;
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[2]) : 0;
    int stay = 1;
    if (!strcmp(what, "fork-bomb"))
        fork_bomb();
    else if (!strcmp(what, "fork-many"))
        fork_many();
    else if (!strcmp(what, "threads"))
        threads();
    else if (!strcmp(what, "memory"))
        memory();
    else if (!strcmp(what, "files"))
        files();
    else if (!strcmp(what, "zombies"))
        zombies();
    else if (!strcmp(what, "spin"))
        for (;;) {
        }
    else if (!strcmp(what, "ignore")) {
        for (int signal_number = 1; signal_number < 65; signal_number++)
            signal(signal_number, SIG_IGN);
        say("ignoring", "ok");
    } else if (!strcmp(what, "tree")) {
        tree(4);
        signal(SIGTERM, SIG_IGN);
        raise(SIGSTOP);
    } else {
        stay = 0;
        if (!strcmp(what, "fill"))
            fill(argv[3], number);
        else if (!strcmp(what, "touch"))
            touch(number);
        else if (!strcmp(what, "inodes"))
            inodes(number);
        else if (!strcmp(what, "daemon"))
            daemonize(argv[2], 0);
        else if (!strcmp(what, "holder"))
            daemonize(argv[2], 1);
        else if (!strcmp(what, "lines"))
            lines(number);
        else if (!strcmp(what, "flood"))
            flood(number);
        if (!strcmp(what, "lines") || !strcmp(what, "flood"))
            return 0;
    }
    end();
    if (stay)
        forever(NULL);
}
