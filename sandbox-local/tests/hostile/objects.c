/* Kernel objects that more than one sandbox has to live with. */
#include "report.h"
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <arpa/inet.h>
#include <sys/inotify.h>
#include <sys/file.h>
#include <sys/socket.h>

static void netlink(void) {
    static const struct {
        const char *name;
        int protocol;
    } all[] = {{"route", 0},  {"usersock", 2},     {"inet_diag", 4}, {"xfrm", 6},
               {"audit", 9},  {"fib_lookup", 10},  {"netfilter", 12}, {"uevent", 15},
               {"generic", 16}, {"crypto", 21}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char name[32];
        snprintf(name, sizeof name, "netlink_%s", all[i].name);
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, all[i].protocol);
        report(name, fd);
        close(fd);
    }
    /* The kernel takes the low half of both. */
    report("netlink_high", syscall(SYS_socket, AF_NETLINK | 1L << 32, SOCK_RAW, 15 | 1L << 32));
}

/* Whether an own echo request comes back. */
static void ping(const char *name) {
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (fd < 0) {
        report(name, -1);
        return;
    }
    struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct icmphdr echo = {.type = ICMP_ECHO};
    sendto(fd, &echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to);
    struct icmphdr reply = {.type = 255};
    long len = recv(fd, &reply, sizeof reply, 0);
    report(name, len == sizeof reply && reply.type == ICMP_ECHOREPLY ? 0 : -1);
}

static void files(const char *dir) {
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/from", dir);
    snprintf(to, sizeof to, "%s/to", dir);
    int fd = open(from, O_CREAT | O_RDWR, 0600);
    int reader = open(from, O_RDONLY);
    close(fd);
    report("lease", fcntl(reader, F_SETLEASE, F_RDLCK));
    report("lease_high", syscall(SYS_fcntl, reader, F_SETLEASE | 1L << 32, F_RDLCK));
    report("lock", flock(reader, 2));
    report("chown_unmapped", fchown(reader, 12345, 12345));
    report("chown_unmapped_group", chown(from, -1, 12345));
    report("chown_path", syscall(SYS_fchownat, AT_FDCWD, from, 0, 0, 0));
    report("chown_own", chown(from, getuid(), getgid()));
    report("chown_none", chown(from, -1, -1));
    report("whiteout", syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_WHITEOUT));
    unlink(to);
    unlink(from);
    close(open(from, O_CREAT | O_RDWR, 0600));
    report("noreplace", syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE));
    unlink(to);
    unlink(from);
}

static void queues(const char *name) {
    mqd_t one = mq_open("/hostile-objects-1", O_CREAT | O_RDWR, 0600, NULL);
    mqd_t two = mq_open("/hostile-objects-2", O_CREAT | O_RDWR, 0600, NULL);
    report(name, one < 0 || two < 0 ? -1 : 0);
    mq_unlink("/hostile-objects-1");
    mq_unlink("/hostile-objects-2");
}

static void watchers(const char *name) {
    int made = 0;
    while (made < 60 && inotify_init1(IN_CLOEXEC) >= 0)
        made++;
    say_number(name, made);
}

/* Writes to a device, or to any file, and gives it the first second of 1970 as its times. */
static int device(const char *path) {
    struct timespec epoch[2] = {{0, 0}, {0, 0}};
    report("write", write(open(path, O_WRONLY), "x", 1));
    report("touch", utimensat(AT_FDCWD, path, epoch, 0));
    end();
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "device") == 0)
        return device(argv[2]);
    netlink();
    apart("ping", ping);
    files(argc > 1 ? argv[1] : ".");
    aio_context_t context = 0;
    report("io_setup", syscall(SYS_io_setup, 1, &context));
    syscall(SYS_io_destroy, context);
    /* open_tree_attr: 467 on all architectures; of a kernel that has it a bad descriptor. */
    report("open_tree_attr", syscall(467, -1, "", 0, NULL, 0));
    report("listns", syscall(470, NULL, NULL, 0, 0));
    apart("queues", queues);
    apart("watchers", watchers);
    end();
}
