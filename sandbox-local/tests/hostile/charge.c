/* Makes kernel objects of one kind until something refuses, says how many there are, and waits. */
#include "report.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static char block[1 << 16];

static long unix_stream(long i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    int size = 1 << 30;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    while (write(pair[0], block, sizeof block) > 0) {
    }
    return 0;
}

static long unix_datagram(long i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    int size = 1 << 30;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    while (write(pair[0], block, 32768) > 0) {
    }
    return 0;
}

static long udp(long i) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof to;
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return -1;
    getsockname(fd, (struct sockaddr *)&to, &len);
    int size = 1 << 30;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    for (int n = 0; n < 64; n++)
        sendto(fd, block, 32768, 0, (struct sockaddr *)&to, len);
    return 0;
}

static long tcp(long i) {
    static struct sockaddr_in to;
    static int listener = -1;
    if (listener < 0) {
        socklen_t len = sizeof to;
        to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, (struct sockaddr *)&to, sizeof to) < 0 || listen(listener, 4096) < 0)
            return -1;
        getsockname(listener, (struct sockaddr *)&to, &len);
    }
    int from = socket(AF_INET, SOCK_STREAM, 0);
    if (from < 0 || connect(from, (struct sockaddr *)&to, sizeof to) < 0)
        return -1;
    int other = accept(listener, NULL, NULL);
    if (other < 0)
        return -1;
    fcntl(from, F_SETFL, O_NONBLOCK);
    while (write(from, block, sizeof block) > 0) {
    }
    return 0;
}

static long netlink(long i) {
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0)
        return -1;
    int size = 1 << 30;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
    } ask = {{sizeof ask, RTM_GETLINK, NLM_F_REQUEST, 0, 0}, {.ifi_index = 1}};
    for (int n = 0; n < 4096 && send(fd, &ask, sizeof ask, MSG_DONTWAIT) > 0; n++) {
    }
    return 0;
}

static long pipes(long i) {
    int pair[2];
    if (pipe2(pair, O_NONBLOCK) < 0)
        return -1;
    fcntl(pair[0], F_SETPIPE_SZ, 1 << 20);
    while (write(pair[1], block, sizeof block) > 0) {
    }
    return 0;
}

static long epoll_watch(long i) {
    static int epolls[512], targets[512], made = -1;
    if (made < 0)
        for (made = 0; made < 400; made++) {
            epolls[made] = epoll_create1(0);
            targets[made] = eventfd(0, 0);
        }
    if (i >= 400 * 400)
        return -1;
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(epolls[i / 400], EPOLL_CTL_ADD, targets[i % 400], &event);
}

static long inotify_watch(long i) {
    static int watcher = -1;
    char path[64];
    if (watcher < 0)
        watcher = inotify_init1(0);
    snprintf(path, sizeof path, "watched-%ld", i);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    return inotify_add_watch(watcher, path, IN_ALL_EVENTS);
}

static long eventfds(long i) { return eventfd(0, 0); }

static long timers(long i) {
    timer_t timer;
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    return timer_create(CLOCK_MONOTONIC, &none, &timer);
}

static long sysv_memory(long i) {
    int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
    char *at = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
    if (at == (void *)-1)
        return -1;
    memset(at, 1, 1 << 20);
    return 0;
}

static long sysv_semaphores(long i) { return semget(IPC_PRIVATE, 250, IPC_CREAT | 0600); }

static long sysv_messages(long i) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    if (id < 0)
        return -1;
    *(long *)block = 1;
    while (msgsnd(id, block, 8192, IPC_NOWAIT) == 0) {
    }
    return 0;
}

static long posix_messages(long i) {
    char name[32];
    snprintf(name, sizeof name, "/charge-%ld", i);
    mqd_t queue = mq_open(name, O_CREAT | O_RDWR | O_NONBLOCK, 0600, NULL);
    if (queue < 0)
        return -1;
    while (mq_send(queue, block, 8192, 0) == 0) {
    }
    return 0;
}

static long memfds(long i) {
    int fd = memfd_create("charge", 0);
    if (fd < 0)
        return -1;
    for (int n = 0; n < 16; n++)
        if (write(fd, block, sizeof block) < 0)
            return -1;
    return 0;
}

static long page_tables(long i) {
    /* A page in every two mebibytes, all of them the same file's: tables and no memory. */
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("charge", 0);
        ftruncate(fd, 4096);
    }
    static char *base;
    if (!base)
        base = mmap(NULL, 1L << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *at = mmap(base + (i << 21), 4096, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0);
    return at == MAP_FAILED ? -1 : 0;
}

static long dentries(long i) {
    char path[256];
    struct stat found;
    snprintf(path, sizeof path, "missing-%0200ld", i);
    stat(path, &found);
    return i < 2000000 ? 0 : -1;
}

static long file_locks(long i) {
    static int fd = -1;
    if (fd < 0)
        fd = open("locked", O_CREAT | O_RDWR, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
    return i < 3000000 ? fcntl(fd, F_SETLK, &lock) : -1;
}

static long threads(long i) {
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static const struct {
    const char *name;
    long (*make)(long);
    long most;
} kinds[] = {
    {"unix-stream", unix_stream, 100000},
    {"unix-datagram", unix_datagram, 100000},
    {"udp", udp, 100000},
    {"tcp", tcp, 100000},
    {"netlink-route", netlink, 100000},
    {"pipe", pipes, 100000},
    {"epoll-watch", epoll_watch, 1000000},
    {"inotify-watch", inotify_watch, 1000000},
    {"eventfd", eventfds, 1000000},
    {"posix-timer", timers, 1000000},
    {"sysv-memory", sysv_memory, 2000},
    {"sysv-semaphores", sysv_semaphores, 100000},
    {"sysv-messages", sysv_messages, 100000},
    {"posix-messages", posix_messages, 100000},
    {"memfd", memfds, 2000},
    {"page-table", page_tables, 1 << 18},
    {"dentry", dentries, 3000000},
    {"file-lock", file_locks, 4000000},
    {"process", threads, 100000},
};

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    memset(block, 1, sizeof block);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (argc < 2 || strcmp(argv[1], kinds[k].name))
            continue;
        long i = 0;
        while (i < kinds[k].most && kinds[k].make(i) >= 0)
            i++;
        const char *error = i < kinds[k].most ? strerrorname_np(errno) : "ENOUGH";
        say_number("count", i);
        say("stopped", error ? error : "unknown");
    }
    end();
    for (;;)
        pause();
}
