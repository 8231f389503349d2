/* Tries system calls that no guest may make. Every attempt has arguments that are harmless should
 * it get through. */
#include "report.h"
#include <linux/fs.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/time.h>

#define CALL(name, ...) report(name, syscall(__VA_ARGS__))

static void map(const char *file, const char *format, int id) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/%s", file);
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        dprintf(fd, format, id);
        close(fd);
    }
}

/* In a user and mount namespace of its own, if one can be had: there an ordinary user may mount,
 * so that a refusal is not for lack of a capability. */
static void mounts(const char *name) {
    uid_t uid = getuid();
    gid_t gid = getgid();
    report(name, unshare(CLONE_NEWUSER | CLONE_NEWNS));
    map("setgroups", "deny", 0);
    map("uid_map", "0 %d 1\n", uid);
    map("gid_map", "0 %d 1\n", gid);
    CALL("open_tree", SYS_open_tree, AT_FDCWD, "/", 1 | O_CLOEXEC);
    CALL("fsopen", SYS_fsopen, "tmpfs", 0);
    CALL("fsconfig", SYS_fsconfig, -1, 6, NULL, NULL, 0);
    CALL("fsmount", SYS_fsmount, -1, 0, 0);
    CALL("fspick", SYS_fspick, AT_FDCWD, "/nonexistent", 0);
    CALL("move_mount", SYS_move_mount, -1, "", -1, "", 4 | 0x40);
    unsigned long attr[4] = {0};
    CALL("mount_setattr", SYS_mount_setattr, -1, "x", 0, attr, sizeof attr);
    CALL("open_tree_attr", 467, -1, "", 1 | O_CLOEXEC | 0x1000, NULL, 0);
    CALL("umount", SYS_umount2, "/tmp/nonexistent", 0);
    CALL("remount", SYS_mount, NULL, "/nonexistent", NULL, MS_REMOUNT | MS_BIND, NULL);
    CALL("bind", SYS_mount, "/nonexistent", "/nonexistent", NULL, MS_BIND, NULL);
    CALL("mount", SYS_mount, "tmpfs", "/tmp", "tmpfs", 0, NULL);
    CALL("mount_proc", SYS_mount, "proc", "/nonexistent", "proc", 0, NULL);
    CALL("pivot_root", SYS_pivot_root, "/nonexistent", "/nonexistent");
    CALL("setns", SYS_setns, -1, 0);
    report("unshare_again", unshare(CLONE_NEWUSER));
    CALL("chroot", SYS_chroot, "/");
}

static void others(const char *name) {
    (void)name;
    report("unshare_mnt", unshare(CLONE_NEWNS));
    report("unshare_net", unshare(CLONE_NEWNET));
    report("unshare_pid", unshare(CLONE_NEWPID));
    report("unshare_ipc", unshare(CLONE_NEWIPC));
    report("unshare_uts", unshare(CLONE_NEWUTS));
    report("unshare_cgroup", unshare(CLONE_NEWCGROUP));
}

static void user_by_clone(const char *name) {
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    report(name, pid);
}

static void user_by_clone3(const char *name) {
    unsigned long args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, args, sizeof args);
    if (pid == 0)
        _exit(0);
    report(name, pid);
}

static void kernel(void) {
    unsigned long zeros[32] = {0};
    CALL("bpf", SYS_bpf, 9999, zeros, sizeof zeros);
    CALL("perf_event_open", SYS_perf_event_open, NULL, 0, -1, -1, 0);
    CALL("userfaultfd", SYS_userfaultfd, 1); /* UFFD_USER_MODE_ONLY */
    CALL("io_uring_setup", SYS_io_uring_setup, 1, zeros);
    CALL("io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
    CALL("io_uring_register", SYS_io_uring_register, -1, 0, NULL, 0);
    CALL("keyctl", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1);
    CALL("add_key", SYS_add_key, "user", "hostile", "x", 1, KEY_SPEC_PROCESS_KEYRING);
    CALL("request_key", SYS_request_key, "user", "nonexistent", NULL, 0);
    CALL("name_to_handle_at", SYS_name_to_handle_at, -1, "x", zeros, zeros, 0);
    CALL("open_by_handle_at", SYS_open_by_handle_at, -1, zeros, 0);
    CALL("kcmp", SYS_kcmp, getpid(), getpid(), 1, 0, 0);
    CALL("fanotify_init", SYS_fanotify_init, 0x200, 0); /* FAN_REPORT_FID */
    CALL("adjtimex", SYS_adjtimex, zeros);
    CALL("clock_adjtime", SYS_clock_adjtime, CLOCK_REALTIME, zeros);
    CALL("settimeofday", SYS_settimeofday, NULL, NULL);
    CALL("clock_settime", SYS_clock_settime, CLOCK_REALTIME, NULL);
    CALL("init_module", SYS_init_module, NULL, 0, "");
    CALL("finit_module", SYS_finit_module, -1, "", 0);
    CALL("delete_module", SYS_delete_module, NULL, 0);
    CALL("kexec_load", SYS_kexec_load, 0, 9999, NULL, 0);
    CALL("reboot", SYS_reboot, 0, 0, 0, 0);
    CALL("swapon", SYS_swapon, "/nonexistent", 0);
    CALL("swapoff", SYS_swapoff, "/nonexistent");
    CALL("acct", SYS_acct, "/nonexistent");
    CALL("syslog", SYS_syslog, 10, NULL, 0);
    CALL("quotactl_fd", 443, -1, 0x80000100u << 8, 0, NULL);
    CALL("listns", 470, NULL, NULL, 0, 0);
    CALL("quotactl", SYS_quotactl, 0x80000100u << 8, NULL, 0, NULL);
#ifdef __x86_64__
    CALL("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, "", 0);
    CALL("iopl", SYS_iopl, 0);
    CALL("ioperm", SYS_ioperm, 0, 1, 0);
    CALL("modify_ldt", SYS_modify_ldt, 0, zeros, sizeof zeros);
#endif
    /* Nothing else under the same uid may be limited or slowed down: init has that uid. */
    unsigned long limit[2] = {0, 0};
    syscall(SYS_prlimit64, getppid(), 4, NULL, limit); /* outside nothing changes by it */
    CALL("prlimit_parent", SYS_prlimit64, getppid(), 4, limit, NULL);
}

static void sockets(void) {
    static const struct {
        const char *name;
        int family, type, protocol;
    } all[] = {
        {"af_alg", 38, SOCK_SEQPACKET, 0},   {"af_vsock", 40, SOCK_STREAM, 0},
        {"af_packet", 17, SOCK_RAW, 0x0300}, {"af_key", 15, SOCK_RAW, 2},
        {"af_bluetooth", 31, SOCK_RAW, 1},   {"af_can", 29, SOCK_RAW, 1},
        {"af_rds", 21, SOCK_SEQPACKET, 0},   {"af_tipc", 30, SOCK_RDM, 0},
        {"af_xdp", 44, SOCK_RAW, 0},         {"af_nfc", 39, SOCK_SEQPACKET, 0},
        {"raw_ip", AF_INET, SOCK_RAW, 1},    {"af_unix", AF_UNIX, SOCK_STREAM, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int fd = socket(all[i].family, all[i].type, all[i].protocol);
        report(all[i].name, fd);
        if (fd >= 0)
            close(fd);
    }
    /* The kernel takes the low half of the family only. */
    report("af_vsock_high", syscall(SYS_socket, 40 | 1L << 32, SOCK_STREAM, 0));
}

static void terminal(const char *name) {
    int main = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    int unlock = 0;
    ioctl(main, TIOCSPTLCK, &unlock);
    setsid();
    int sub = open(ptsname(main) ? ptsname(main) : "", O_RDWR);
    report(name, ioctl(sub, TIOCSCTTY, 0));
    report("tiocsti", ioctl(sub, TIOCSTI, "x"));
    report("tiocsti_high", syscall(SYS_ioctl, sub, 0x100000000L | TIOCSTI, "x"));
    char paste = 3;
    report("tioclinux", ioctl(sub, TIOCLINUX, &paste));
}

static void nodes(const char *dir) {
    char path[512];
    static const struct {
        const char *name;
        mode_t mode;
        dev_t device;
    } all[] = {
        {"block", S_IFBLK | 0600, 0xfe00}, {"char", S_IFCHR | 0600, 0x101},
        {"whiteout", S_IFCHR | 0600, 0},   {"fifo", S_IFIFO | 0600, 0},
        {"sock", S_IFSOCK | 0600, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char name[64];
        snprintf(path, sizeof path, "%s/node", dir);
        snprintf(name, sizeof name, "mknodat_%s", all[i].name);
        report(name, syscall(SYS_mknodat, AT_FDCWD, path, all[i].mode, all[i].device));
        unlink(path);
#ifdef SYS_mknod
        snprintf(name, sizeof name, "mknod_%s", all[i].name);
        report(name, syscall(SYS_mknod, path, all[i].mode, all[i].device));
        unlink(path);
#endif
    }
    /* A rename that leaves a whiteout behind makes a device by another way. */
    char to[512];
    snprintf(path, sizeof path, "%s/from", dir);
    snprintf(to, sizeof to, "%s/to", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    report("rename_whiteout", syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, to, RENAME_WHITEOUT));
    unlink(to);
    unlink(path);
}

#ifdef __x86_64__
static void compat(const char *name) {
    long result;
    /* socket(AF_INET, SOCK_STREAM, 0) as an i386 call: number 359. */
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(359), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    say(name, result >= 0 ? "ok" : strerrorname_np(-result));
}
#endif

int main(int argc, char **argv) {
    apart("unshare_user", mounts);
    apart("unshare_others", others);
    apart("clone_user", user_by_clone);
    apart("clone3_user", user_by_clone3);
    kernel();
    sockets();
    apart("own_terminal", terminal);
    nodes(argc > 1 ? argv[1] : ".");
#ifdef __x86_64__
    apart("int80", compat);
    CALL("x32", 0x40000000L | SYS_getpid);
#endif
    end();
}
