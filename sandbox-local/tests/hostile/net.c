/* Connects: to sockets of the host, to the outer world, to what another sandbox left. */
#include "report.h"
#include <arpa/inet.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static socklen_t unix_address(struct sockaddr_un *address, const char *name, int abstract) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    strncpy(address->sun_path + abstract, name, sizeof address->sun_path - 2);
    return offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
}

static int connect_unix(const char *name, int abstract) {
    struct sockaddr_un address;
    socklen_t length = unix_address(&address, name, abstract);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (void *)&address, length);
}

/* Waits ten seconds at most; says how long it took. */
static void connect_ip(const char *name, int type, const char *ip, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &address.sin_addr);
    struct timeval wait = {10, 0};
    int fd = socket(AF_INET, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    long before = now();
    int result = connect(fd, (void *)&address, sizeof address);
    if (result == 0 && type == SOCK_DGRAM) {
        char byte;
        result = send(fd, "x", 1, 0);
        if (result == 1)
            result = recv(fd, &byte, 1, 0);
    }
    report(name, result);
    char text[64];
    snprintf(text, sizeof text, "%s_ms", name);
    say_number(text, now() - before);
}

static void leave(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    report("file", open(path, O_CREAT | O_RDWR, 0666));
    report("shm", shmget(0x4242, 4096, IPC_CREAT | 0666));
    snprintf(path, sizeof path, "/%s", name);
    report("queue", mq_open(path, O_CREAT | O_RDWR, 0666, NULL));
    struct sockaddr_un address;
    socklen_t length = unix_address(&address, name, 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    report("bind", bind(fd, (void *)&address, length));
    report("listen", listen(fd, 8));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in ip = {.sin_family = AF_INET, .sin_port = htons(4242)};
    ip.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    report("bind_ip", bind(fd, (void *)&ip, sizeof ip));
    report("listen_ip", listen(fd, 8));
}

static void look(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "/dev/shm/%s", name);
    report("file", open(path, O_RDWR));
    report("shm", shmget(0x4242, 0, 0));
    snprintf(path, sizeof path, "/%s", name);
    report("queue", mq_open(path, O_RDWR));
    report("abstract", connect_unix(name, 1));
    connect_ip("loopback", SOCK_STREAM, "127.0.0.1", 4242);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *name = argc > 2 ? argv[2] : "";
    if (!strcmp(what, "unix"))
        report("unix", connect_unix(name, 0));
    else if (!strcmp(what, "abstract"))
        report("abstract", connect_unix(name, 1));
    else if (!strcmp(what, "tcp"))
        connect_ip("tcp", SOCK_STREAM, name, atoi(argv[3]));
    else if (!strcmp(what, "udp"))
        connect_ip("udp", SOCK_DGRAM, name, atoi(argv[3]));
    else if (!strcmp(what, "landlock"))
        say_number("version", syscall(SYS_landlock_create_ruleset, NULL, 0, 1));
    else if (!strcmp(what, "look"))
        look(name);
    else if (!strcmp(what, "lock")) {
        report("lock", flock(open(name, O_RDONLY), LOCK_EX | LOCK_NB));
    } else if (!strcmp(what, "leave") || !strcmp(what, "hold")) {
        if (!strcmp(what, "leave"))
            leave(name);
        else
            report("lock", flock(open(name, O_RDONLY), LOCK_EX | LOCK_NB));
        end();
        pause();
    } else if (!strcmp(what, "watch")) {
        char event[512];
        int fd = inotify_init1(IN_CLOEXEC);
        report("watch", inotify_add_watch(fd, name, IN_OPEN));
        end();
        say("seen", read(fd, event, sizeof event) > 0 ? "ok" : "nothing");
        pause();
    }
    end();
}
