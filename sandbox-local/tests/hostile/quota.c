/* Uses up, or changes, what processes of one user share beyond namespaces. */
#include "report.h"
#include <linux/ioprio.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <dirent.h>

static void raise_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Sends itself descriptors and does not receive them. */
static long in_flight(void) {
    long count = 0;
    raise_files();
    for (int round = 0; round < 4000; round++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair))
            break;
        for (;;) {
            enum { MANY = 250 };
            char control[CMSG_SPACE(MANY * sizeof(int))] = {0};
            struct iovec data = {"x", 1};
            struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                                     .msg_controllen = sizeof control};
            struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(MANY * sizeof(int));
            for (int i = 0; i < MANY; i++)
                ((int *)CMSG_DATA(head))[i] = 0;
            if (sendmsg(pair[0], &message, 0) < 0)
                break;
            count += MANY;
        }
        if (errno == ETOOMANYREFS)
            break;
    }
    return count;
}

static long timers(void) {
    long count = 0;
    for (timer_t timer; timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0;)
        count++;
    return count;
}

static long watchers(void) {
    long count = 0;
    raise_files();
    while (inotify_init1(IN_CLOEXEC) >= 0)
        count++;
    return count;
}

static long queues(void) {
    long count = 0;
    struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = 8192};
    for (;; count++) {
        char name[32];
        snprintf(name, sizeof name, "/hostile-%d-%ld", getpid(), count);
        if (mq_open(name, O_CREAT | O_RDWR, 0600, &attr) < 0)
            break;
        mq_unlink(name);
    }
    return count;
}

static long locked(void) {
    long count = 0;
    extern int mlock(const void *, size_t);
    for (;; count++) {
        char *page = aligned_alloc(4096, 1 << 20);
        if (!page || mlock(page, 1 << 20))
            break;
    }
    return count;
}

/* Makes pipes until the kernel gives its user small ones only; the size of the last. */
static long pipes(void) {
    long size = 0;
    raise_files();
    for (int count = 0; count < 20000; count++) {
        int ends[2];
        if (pipe(ends))
            break;
        size = fcntl(ends[0], F_GETPIPE_SZ);
        if (size < 65536)
            break;
    }
    return size;
}

/* The size of one pipe. */
static long one_pipe(void) {
    int ends[2];
    return pipe(ends) ? -1 : fcntl(ends[0], F_GETPIPE_SZ);
}

static void slow(const char *pid_text) {
    int pid = atoi(pid_text);
    struct sched_param none = {0};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    report("sched_setscheduler", sched_setscheduler(pid, SCHED_IDLE, &none));
    report("sched_setparam", sched_setparam(pid, &none));
    struct {
        unsigned size, policy;
        unsigned long flags;
        int nice;
        unsigned priority;
        unsigned long runtime, deadline, period;
    } attr = {.size = 48, .policy = SCHED_IDLE};
    report("sched_setattr", syscall(SYS_sched_setattr, pid, &attr, 0));
    report("sched_setaffinity", sched_setaffinity(pid, sizeof cpus, &cpus));
    report("setpriority", setpriority(PRIO_PROCESS, pid, 19));
    report("ioprio_set", syscall(SYS_ioprio_set, 1, pid, 3 << 13));
}

/* Looks for a process that runs the image with this name, and takes hold of it. */
static void catch_image(int milliseconds, const char *image) {
    struct timespec now, start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    long seen = 0;
    do {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc));) {
            char path[300], target[300] = "";
            if (entry->d_name[0] < '2' || entry->d_name[0] > '9')
                if (strlen(entry->d_name) < 2 || entry->d_name[0] != '1')
                    continue;
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            if (readlink(path, target, sizeof target - 1) < 0 || !strstr(target, image))
                continue;
            seen++;
            int fd = open(path, O_RDONLY);
            if (fd < 0)
                continue;
            report("caught", fd);
            end();
            pause();
        }
        closedir(proc);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
             milliseconds);
    say_number("seen", seen);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "slow"))
        slow(argv[2]);
    else if (!strcmp(what, "image"))
        catch_image(atoi(argv[2]), argv[3]);
    else {
        long (*use)(void) = !strcmp(what, "in-flight") ? in_flight
                            : !strcmp(what, "timers")  ? timers
                            : !strcmp(what, "inotify") ? watchers
                            : !strcmp(what, "queues")  ? queues
                            : !strcmp(what, "pipes")   ? pipes
                            : !strcmp(what, "pipe")    ? one_pipe
                                                       : locked;
        say_number("count", use());
        report("refused", -1);
        end();
        /* Once more as a probe; otherwise to be held until killed. */
        if (argc > 2)
            return 0;
        pause();
    }
    end();
}
