/* One attempt after the other, each in a process of its own. With "control" it runs outside: there
 * in namespaces of its own, in which even an ordinary user has every right, so that a refusal inside
 * is for another reason than the lack of them, and nothing of the host changes.
 *
 *   attempts [control]        all of them
 *   attempts only NAME        one, which says its result by its exit code: 0 or an errno
 */
#include "report.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_addr.h>
#include <linux/memfd.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/xattr.h>

static int control;
static const char *self;

/* A program of the host's; outside, a copy of one in the working directory. */
#define HOST_DIR (control ? "host" : "/usr/bin")
#define HOST_FILE (control ? "host/env" : "/usr/bin/env")
#define HOST_NEW (control ? "host/new" : "/usr/bin/hostile-new")

static long put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    long wrote = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return wrote;
}

/* A user, and all other namespaces, of its own. */
static void own_namespaces(void) {
    char text[64];
    uid_t uid = getuid();
    gid_t gid = getgid();
    int spaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
    if (unshare(uid ? CLONE_NEWUSER | spaces : spaces))
        exit(3);
    if (uid) {
        put("/proc/self/setgroups", "deny");
        snprintf(text, sizeof text, "0 %d 1", uid);
        put("/proc/self/uid_map", text);
        snprintf(text, sizeof text, "0 %d 1", gid);
        put("/proc/self/gid_map", text);
    }
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* Whom to attack: init; outside, a child. */
static pid_t child;
static pid_t other(void) {
    if (!control)
        return 1;
    if (!child) {
        child = fork();
        while (child == 0)
            pause();
    }
    return child;
}

static int open_of_other(const char *file, int flags) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", other(), file);
    return open(path, flags);
}

/* In a child, whose exit code is the errno. */
static long in_child(pid_t pid) {
    int status = 0;
    if (pid < 0)
        return -1;
    if (waitpid(pid, &status, __WALL) != pid || !WIFEXITED(status)) {
        errno = ECHILD;
        return -1;
    }
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

#define ATTEMPT(name) static long try_##name(void)

/* --- Namespaces and mounts --- */

static long clone_with(long flags) {
    pid_t pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return in_child(pid);
}

ATTEMPT(clone_mount_namespace) { return clone_with(CLONE_NEWNS); }
ATTEMPT(clone_pid_namespace) { return clone_with(CLONE_NEWPID); }
ATTEMPT(clone_network_namespace) { return clone_with(CLONE_NEWNET); }
ATTEMPT(clone_ipc_namespace) { return clone_with(CLONE_NEWIPC); }
ATTEMPT(clone_uts_namespace) { return clone_with(CLONE_NEWUTS); }
ATTEMPT(clone_cgroup_namespace) { return clone_with(CLONE_NEWCGROUP); }
ATTEMPT(unshare_time_namespace) { return unshare(0x80); }
ATTEMPT(clone_user_namespace) { return clone_with(CLONE_NEWUSER); }

ATTEMPT(enter_own_namespaces_by_pidfd) {
    int self_fd = syscall(SYS_pidfd_open, getpid(), 0);
    return setns(self_fd, CLONE_NEWUTS);
}

ATTEMPT(detach_proc) { return umount2("/proc", MNT_DETACH); }
ATTEMPT(bind_the_hosts_programs) { return mount("/usr", "/usr", NULL, MS_BIND | MS_REC, NULL); }
ATTEMPT(mount_an_overlay_of_the_hosts_files) {
    mkdir("mnt", 0700);
    return mount("overlay", "mnt", "overlay", 0, "lowerdir=/usr/bin:/usr/lib");
}
ATTEMPT(mount_devpts_anew) {
    mkdir("mnt", 0700);
    return mount("devpts", "mnt", "devpts", 0, "newinstance");
}

static long write_map(const char *file) {
    char text[64];
    snprintf(text, sizeof text, "0 %d 1", file[11] == 'g' ? (int)getegid() : (int)geteuid());
    unshare(CLONE_NEWUSER);
    put("/proc/self/setgroups", "deny");
    return put(file, text);
}
ATTEMPT(write_user_map) { return write_map("/proc/self/uid_map"); }
ATTEMPT(write_group_map) { return write_map("/proc/self/gid_map"); }
ATTEMPT(set_host_name) { return sethostname("evil", 4); }
ATTEMPT(set_domain_name) { return setdomainname("evil", 4); }

/* --- The filter cannot be got round --- */

static long user_namespace(void) { return clone_with(CLONE_NEWUSER); }

static void *in_thread(void *result) {
    long *said = result;
    said[0] = user_namespace();
    said[1] = errno;
    return NULL;
}
ATTEMPT(user_namespace_from_a_thread) {
    long said[2];
    pthread_t thread;
    if (pthread_create(&thread, NULL, in_thread, said))
        return -1;
    pthread_join(thread, NULL);
    errno = said[1];
    return said[0];
}
ATTEMPT(user_namespace_after_vfork) {
    static volatile int result;
    pid_t pid = vfork();
    if (pid == 0) {
        result = unshare(CLONE_NEWUSER) ? errno : 0;
        _exit(result);
    }
    return in_child(pid);
}
static long exec_only(int by) {
    pid_t pid = fork();
    if (pid == 0) {
        char *args[] = {"attempts", "only", "clone_user_namespace", NULL}, *none[] = {NULL};
        int from = open("/proc/self/exe", O_RDONLY);
        if (by == 1) {
            int memory = memfd_create("program", 0);
            char bytes[65536];
            for (ssize_t n; (n = read(from, bytes, sizeof bytes)) > 0;)
                if (write(memory, bytes, n) != n)
                    _exit(EIO);
            fexecve(memory, args, none);
        } else if (by == 2)
            syscall(SYS_execveat, from, "", args, none, AT_EMPTY_PATH);
        else
            execve("/proc/self/exe", args, none);
        _exit(errno);
    }
    return in_child(pid);
}
ATTEMPT(user_namespace_of_a_program_in_memory) { return exec_only(1); }
ATTEMPT(user_namespace_of_a_program_by_descriptor) { return exec_only(2); }
ATTEMPT(user_namespace_of_a_program_by_link) { return exec_only(3); }
ATTEMPT(user_namespace_of_a_sibling) {
    int ends[2], error = EIO;
    if (pipe(ends))
        return -1;
    pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        error = unshare(CLONE_NEWUSER) ? errno : 0;
        _exit(write(ends[1], &error, sizeof error) != sizeof error);
    }
    if (pid < 0 || read(ends[0], &error, sizeof error) != sizeof error)
        return -1;
    errno = error;
    return error ? -1 : 0;
}
static void filter_says(unsigned verdict, unsigned flags, int *listener) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, verdict),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    long made = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (listener)
        *listener = made;
    if (made < 0)
        exit(4);
}
ATTEMPT(user_namespace_behind_an_own_filter) {
    filter_says(SECCOMP_RET_ALLOW, 0, NULL);
    return unshare(CLONE_NEWUSER);
}
ATTEMPT(user_namespace_behind_an_own_log_filter) {
    filter_says(SECCOMP_RET_LOG, 0, NULL);
    return unshare(CLONE_NEWUSER);
}
/* A supervisor says "go on" to a call that the sandbox's filter refuses. */
ATTEMPT(user_namespace_by_an_own_supervisor) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        int listener;
        filter_says(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER, &listener);
        char control_data[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
        struct iovec data = {&byte, 1};
        struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control_data,
                                 .msg_controllen = sizeof control_data};
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &listener, sizeof listener);
        if (sendmsg(ends[1], &message, 0) != 1)
            _exit(EIO);
        close(listener);
        _exit(unshare(CLONE_NEWUSER) ? errno : 0);
    }
    close(ends[1]);
    char control_data[CMSG_SPACE(sizeof(int))], byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control_data,
                             .msg_controllen = sizeof control_data};
    int listener;
    if (recvmsg(ends[0], &message, 0) != 1)
        return -1;
    memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    /* It hangs up when the call does not come to it at all. */
    struct pollfd asks = {listener, POLLIN, 0};
    struct seccomp_notif asked = {0};
    if (poll(&asks, 1, 10000) == 1 && asks.revents & POLLIN &&
        ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0) {
        struct seccomp_notif_resp answer = {.id = asked.id,
                                            .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    return in_child(pid);
}
#ifdef __x86_64__
/* A debugger turns a harmless call into another one after it has begun. */
ATTEMPT(user_namespace_by_a_debugger) {
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        long result = syscall(SYS_getppid, CLONE_NEWUSER);
        _exit(result == 0 ? 0 : result < 0 ? errno : EPROTO);
    }
    int status;
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    while (ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0 && waitpid(pid, &status, 0) == pid) {
        if (WIFEXITED(status)) {
            errno = WEXITSTATUS(status);
            return errno ? -1 : 0;
        }
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, pid, 0, &registers);
        if (registers.orig_rax == SYS_getppid) {
            registers.orig_rax = SYS_unshare;
            ptrace(PTRACE_SETREGS, pid, 0, &registers);
        }
    }
    errno = ECHILD;
    return -1;
}
#endif

/* --- Rights --- */

ATTEMPT(clear_secure_bits) { return prctl(PR_SET_SECUREBITS, 0, 0, 0, 0); }
static long set_capabilities(unsigned bits, unsigned inheritable) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{bits, bits, inheritable}, {0}};
    return syscall(SYS_capset, &head, data);
}
ATTEMPT(take_a_capability) { return set_capabilities(1 << CAP_SYS_ADMIN, 0); }
ATTEMPT(raise_an_ambient_capability) {
    set_capabilities(1 << CAP_NET_ADMIN, 1 << CAP_NET_ADMIN);
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
}
ATTEMPT(become_root) { return syscall(SYS_setresuid, 0, 0, 0); }
ATTEMPT(become_roots_group) { return syscall(SYS_setresgid, 0, 0, 0); }
ATTEMPT(become_another_user) { return syscall(SYS_setresuid, 1001, 1001, 1001); }
ATTEMPT(set_groups) {
    gid_t group = 0;
    return syscall(SYS_setgroups, 1, &group);
}
static int own_file(void) { return open("own", O_CREAT | O_RDWR, 0755); }
ATTEMPT(give_a_file_capabilities) {
    /* VFS_CAP_REVISION_2, effective, CAP_SYS_ADMIN permitted. */
    unsigned value[5] = {0x02000001, 1 << CAP_SYS_ADMIN, 0, 0, 0};
    return fsetxattr(own_file(), "security.capability", value, sizeof value, 0);
}
ATTEMPT(set_a_trusted_attribute) {
    return fsetxattr(own_file(), "trusted.overlay.opaque", "y", 1, 0);
}
ATTEMPT(set_a_security_attribute) { return fsetxattr(own_file(), "security.evil", "y", 1, 0); }
ATTEMPT(make_a_file_immutable) {
    int flags = FS_IMMUTABLE_FL;
    int fd = own_file();
    long result = ioctl(fd, FS_IOC_SETFLAGS, &flags);
    int error = errno;
    flags = 0;
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
    errno = error;
    return result;
}
ATTEMPT(map_address_zero) {
    void *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? -1 : 0;
}

/* --- The host's files --- */

ATTEMPT(host_file_truncate_by_open) { return open(HOST_FILE, O_WRONLY | O_TRUNC); }
ATTEMPT(host_file_truncate) { return truncate(HOST_FILE, 0); }
ATTEMPT(host_file_chmod) { return chmod(HOST_FILE, 0777); }
ATTEMPT(host_file_chown) { return chown(HOST_FILE, getuid(), getgid()); }
ATTEMPT(host_file_times) { return utimensat(AT_FDCWD, HOST_FILE, NULL, 0); }
ATTEMPT(host_file_attribute) { return setxattr(HOST_FILE, "user.evil", "y", 1, 0); }
ATTEMPT(host_file_attribute_removed) {
    long removed = removexattr(HOST_FILE, "user.none");
    return removed && errno == ENODATA ? 0 : removed;
}
ATTEMPT(host_file_flags) {
    int flags = 0;
    return ioctl(open(HOST_FILE, O_RDONLY), FS_IOC_SETFLAGS, &flags);
}
ATTEMPT(host_file_unlink) { return unlink(HOST_FILE); }
ATTEMPT(host_file_rename) { return rename(HOST_FILE, HOST_NEW); }
ATTEMPT(host_file_exchange) {
    return syscall(SYS_renameat2, AT_FDCWD, HOST_FILE, AT_FDCWD, control ? "host/dir" : "/usr/lib", 2);
}
ATTEMPT(host_file_hard_link) { return link(HOST_FILE, "linked"); }
ATTEMPT(host_file_hard_link_by_descriptor) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", open(HOST_FILE, O_PATH));
    return linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW);
}
ATTEMPT(host_dir_new_directory) { return mkdir(HOST_NEW, 0700); }
ATTEMPT(host_dir_new_link) { return symlink("/etc", HOST_NEW); }
ATTEMPT(host_dir_new_fifo) { return mknod(HOST_NEW, S_IFIFO | 0600, 0); }
ATTEMPT(host_dir_new_file) { return open(HOST_NEW, O_CREAT | O_EXCL | O_WRONLY, 0600); }
ATTEMPT(host_dir_nameless_file) { return open(HOST_DIR, O_TMPFILE | O_WRONLY, 0600); }
ATTEMPT(host_dir_new_socket) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path, HOST_NEW);
    return bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
}
ATTEMPT(host_dir_own_file_moved_in) {
    close(own_file());
    return rename("own", HOST_NEW);
}
static long device(const char *call) {
    if (*call == 't')
        return utimensat(AT_FDCWD, "/dev/null", NULL, 0);
    return open("/dev/hostile", O_CREAT | O_WRONLY, 0600);
}
ATTEMPT(device_directory_new_file) { return control ? own_file() : device("open"); }
ATTEMPT(device_times) {
    return control ? utimensat(AT_FDCWD, HOST_FILE, NULL, 0) : device("touch");
}

/* --- What there is to be seen --- */

/* A file that is covered by an empty one can be opened. */
static long holds_something(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    long got = fd < 0 ? -1 : read(fd, &byte, 1);
    if (got == 0)
        errno = ENODATA;
    return got > 0 ? 0 : -1;
}
ATTEMPT(see_kernel_symbols) { return holds_something("/proc/kallsyms"); }
ATTEMPT(see_kernel_modules) { return open("/sys/module", O_RDONLY); }
ATTEMPT(see_control_groups) { return open("/sys/fs/cgroup", O_RDONLY); }
static int has_entries(const char *path) {
    long entries = 0;
    DIR *directory = opendir(path);
    if (!directory)
        return -1;
    while (readdir(directory))
        entries++;
    errno = ENODATA;
    return entries > 2 ? 0 : -1;
}
ATTEMPT(see_the_hosts_logs) { return has_entries("/var/log"); }
ATTEMPT(see_roots_home) { return has_entries("/root"); }
ATTEMPT(see_the_boot_partition) { return access("/boot", F_OK); }
ATTEMPT(see_other_devices) {
    static const char *const known[] = {".",    "..",   "null", "zero",  "full",   "random", "urandom",
                                        "tty",  "fd",   "stdin", "stdout", "stderr", "ptmx",  "pts",
                                        "shm",  "mqueue", ".empty"};
    long others = 0;
    DIR *dev = opendir("/dev");
    for (struct dirent *entry; (entry = readdir(dev));) {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found |= !strcmp(known[i], entry->d_name);
        others += !found;
    }
    errno = ENODEV;
    return others ? 0 : -1;
}
ATTEMPT(see_physical_addresses) {
    unsigned long entry = 0;
    static volatile char page[4096] = {1};
    page[1] = 2;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    if (pread(fd, &entry, 8, (unsigned long)page / 4096 * 8) != 8)
        return -1;
    errno = ENODATA;
    return entry & ((1ul << 55) - 1) ? 0 : -1;
}
ATTEMPT(see_inits_namespaces) { return open_of_other("ns/user", O_RDONLY); }
ATTEMPT(see_inits_call) { return open_of_other("syscall", O_RDONLY); }
ATTEMPT(see_inits_memory_in_pages) { return open_of_other("pagemap", O_RDONLY); }
ATTEMPT(see_inits_io) {
    char text[512];
    int fd = open_of_other("io", O_RDONLY);
    return fd < 0 ? -1 : read(fd, text, sizeof text);
}
ATTEMPT(clear_inits_references) { return open_of_other("clear_refs", O_WRONLY); }

/* --- Other processes --- */

ATTEMPT(write_inits_memory) {
    static char bytes[8];
    struct iovec here = {bytes, 8}, there = {bytes, 8};
    return process_vm_writev(other(), &here, 1, &there, 1, 0);
}
ATTEMPT(push_out_inits_memory) {
    static char bytes[8192];
    struct iovec there = {(void *)(((unsigned long)bytes + 4095) & ~4095ul), 4096};
    int pidfd = syscall(SYS_pidfd_open, other(), 0);
    return syscall(440, pidfd, &there, 1, 20 /* MADV_COLD */, 0);
}
ATTEMPT(move_inits_group) { return setpgid(other(), 0); }
ATTEMPT(see_inits_robust_list) {
    void *list;
    size_t length;
    return syscall(SYS_get_robust_list, other(), &list, &length);
}
ATTEMPT(attach_to_init) { return ptrace(PTRACE_ATTACH, other(), 0, 0); }

/* --- Resources of the machine; what not even root may raise everywhere is lowered outside --- */

/* Through all processes of the user, of which init may be one. Outside in a pid namespace of its
 * own, beyond which it does not reach: or it would slow down the whole machine. */
ATTEMPT(slow_init_with_its_user) {
    if (control && unshare(CLONE_NEWPID))
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        if (control && getpid() != 1)
            _exit(EIO);
        pid_t victim = other();
        if (setpriority(PRIO_USER, getuid(), 19))
            _exit(errno);
        _exit(getpriority(PRIO_PROCESS, victim) == 19 ? 0 : EPERM);
    }
    return in_child(pid);
}
ATTEMPT(slow_init_with_its_group) {
    pid_t victim = other();
    if (control && setpgid(victim, victim))
        return -1;
    return setpriority(PRIO_PGRP, victim, 19);
}
static long put_of_other(const char *file, const char *text) {
    int fd = open_of_other(file, O_WRONLY);
    if (fd < 0)
        return -1;
    long wrote = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return wrote;
}
ATTEMPT(slow_inits_timers) { return put_of_other("timerslack_ns", "4000000000"); }
ATTEMPT(rename_init) { return control ? put("/proc/self/comm", "x") : put_of_other("comm", "x"); }
/* The kernel sends what the owner of a descriptor is to get in the name of who writes. */
ATTEMPT(end_init_by_a_readable_pipe) {
    int ends[2], status;
    pid_t victim = other();
    if (pipe(ends) || fcntl(ends[0], F_SETOWN, victim) || fcntl(ends[0], F_SETSIG, SIGKILL) ||
        fcntl(ends[0], F_SETFL, O_ASYNC) || write(ends[1], "x", 1) != 1)
        return -1;
    if (control)
        return waitpid(victim, &status, 0) == victim && WIFSIGNALED(status) ? 0 : -1;
    errno = EPERM;
    return -1;
}
/* Since Linux 6.11 by the descriptor of a process, before by name. */
ATTEMPT(take_inits_namespaces_by_pidfd) {
    int fd = syscall(SYS_pidfd_open, other(), 0);
    int space = ioctl(fd, _IO(0xFF, 4) /* PIDFD_GET_NET_NAMESPACE */, 0);
    if (space < 0 && (errno == ENOTTY || errno == EINVAL))
        space = open_of_other("ns/net", O_RDONLY);
    return space;
}

ATTEMPT(deadline_scheduling) {
    struct {
        unsigned size, policy;
        unsigned long flags;
        int nice;
        unsigned priority;
        unsigned long runtime, deadline, period;
    } attributes = {.size = 48, .policy = 6, .runtime = 1000000, .deadline = 10000000, .period = 10000000};
    return syscall(SYS_sched_setattr, 0, &attributes, 0);
}
ATTEMPT(real_time_input_and_output) { return syscall(SYS_ioprio_set, 1, 0, 1 << 13); }
ATTEMPT(be_nicer_to_oneself) { return setpriority(PRIO_PROCESS, 0, -5); }
ATTEMPT(lock_much_memory) {
    void *memory = mmap(NULL, 64 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mlock(memory, 64 << 20);
}
ATTEMPT(enlarge_a_pipe) {
    int ends[2];
    return pipe(ends) ? -1 : fcntl(ends[0], F_SETPIPE_SZ, control ? 128 << 10 : 8 << 20);
}
ATTEMPT(a_message_queue_beyond_the_limit) {
    struct mq_attr attr = {.mq_maxmsg = control ? 5 : 20, .mq_msgsize = 64};
    long made = mq_open("/hostile-attempt", O_CREAT | O_RDWR, 0600, &attr);
    int error = errno;
    mq_unlink("/hostile-attempt");
    errno = error;
    return made;
}
ATTEMPT(be_spared_when_memory_runs_out) { return put("/proc/self/oom_score_adj", control ? "900" : "-500"); }
ATTEMPT(dump_core) {
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_CORE, &all);
}
ATTEMPT(more_open_files) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_max += control ? -1 : 1;
    limit.rlim_cur = 1;
    return setrlimit(RLIMIT_NOFILE, &limit);
}
ATTEMPT(more_processes) {
    struct rlimit limit;
    getrlimit(RLIMIT_NPROC, &limit);
    limit.rlim_max += control ? -1 : 1;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NPROC, &limit);
}
ATTEMPT(huge_pages) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE;
    return mmap(NULL, 2 << 20, PROT_READ, flags, -1, 0) == MAP_FAILED ? -1 : 0;
}
ATTEMPT(huge_pages_in_a_file) { return memfd_create("huge", MFD_HUGETLB); }
ATTEMPT(huge_pages_in_shared_memory) {
    int id = shmget(IPC_PRIVATE, 2 << 20, IPC_CREAT | SHM_HUGETLB | SHM_NORESERVE | 0600);
    if (id >= 0)
        shmctl(id, IPC_RMID, NULL);
    return id;
}
ATTEMPT(memory_out_of_the_kernels_sight) { return syscall(447, 0); }

/* --- Network --- */

ATTEMPT(socket_families) {
    long others = 0;
    for (int family = 1; family < 48; family++)
        for (int type = 1; type < 6; type++) {
            int fd = socket(family, type, 0);
            others += fd >= 0 && family != AF_UNIX && family != AF_INET && family != AF_INET6 &&
                      family != AF_NETLINK;
            close(fd);
        }
    errno = EAFNOSUPPORT;
    return others ? 0 : -1;
}
ATTEMPT(protocol_mptcp) { return socket(AF_INET, SOCK_STREAM, 262); }
ATTEMPT(protocol_mptcp_of_ipv6) { return socket(AF_INET6, SOCK_STREAM, 262); }
ATTEMPT(protocol_mptcp_by_high_bits) {
    return syscall(SYS_socket, AF_INET | 1L << 32, SOCK_STREAM, 262 | 1L << 32);
}
ATTEMPT(protocol_udplite) { return socket(AF_INET, SOCK_DGRAM, 136); }
static int interface(short flags, struct ifreq *request) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    *request = (struct ifreq){.ifr_name = "lo", .ifr_flags = flags};
    return fd;
}
ATTEMPT(take_loopback_down) {
    struct ifreq request;
    return ioctl(interface(0, &request), SIOCSIFFLAGS, &request);
}
ATTEMPT(add_a_route) {
    struct ifreq up;
    int fd = interface(IFF_UP, &up);
    ioctl(fd, SIOCSIFFLAGS, &up);
    struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = "lo"};
    struct sockaddr_in *to = (struct sockaddr_in *)&route.rt_dst;
    struct sockaddr_in *mask = (struct sockaddr_in *)&route.rt_genmask;
    *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a010200)};
    *mask = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xffffff00)};
    return ioctl(fd, SIOCADDRT, &route);
}
/* One request to the kernel, and its answer. */
static long ask_kernel(int type, const void *body, size_t size, int attribute, const void *value,
                       size_t length) {
    struct {
        struct nlmsghdr head;
        char rest[256];
    } message = {.head = {.nlmsg_type = type,
                          .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL}};
    memcpy(message.rest, body, size);
    struct rtattr *added = (struct rtattr *)(message.rest + NLMSG_ALIGN(size));
    added->rta_type = attribute;
    added->rta_len = RTA_LENGTH(length);
    memcpy(RTA_DATA(added), value, length);
    message.head.nlmsg_len = NLMSG_LENGTH(NLMSG_ALIGN(size) + RTA_ALIGN(added->rta_len));
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        char rest[1024];
    } answer;
    if (send(fd, &message, message.head.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0)
        return -1;
    errno = -answer.error.error;
    return errno ? -1 : 0;
}
ATTEMPT(add_an_address) {
    struct ifaddrmsg body = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = 1};
    unsigned address = htonl(0x0a010203);
    return ask_kernel(RTM_NEWADDR, &body, sizeof body, IFA_LOCAL, &address, sizeof address);
}
ATTEMPT(shape_traffic) {
    struct tcmsg body = {.tcm_ifindex = 1, .tcm_parent = TC_H_ROOT, .tcm_handle = 0x10000};
    return ask_kernel(RTM_NEWQDISC, &body, sizeof body, TCA_KIND, "pfifo", 6);
}
static long option(int type, int level, int name) {
    int one = 1;
    return setsockopt(socket(AF_INET, type, 0), level, name, &one, sizeof one);
}
ATTEMPT(mark_packets) { return option(SOCK_DGRAM, SOL_SOCKET, SO_MARK); }
ATTEMPT(force_a_receive_buffer) { return option(SOCK_DGRAM, SOL_SOCKET, SO_RCVBUFFORCE); }
ATTEMPT(speak_for_other_addresses) { return option(SOCK_DGRAM, IPPROTO_IP, 19); }
ATTEMPT(repair_a_connection) { return option(SOCK_STREAM, IPPROTO_TCP, TCP_REPAIR); }
ATTEMPT(send_anothers_credentials) {
    int ends[2];
    struct ucred forged = {getpid(), 12345, 12345};
    if (control)
        forged.uid = forged.gid = 0;
    char control_data[CMSG_SPACE(sizeof forged)] = {0}, byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control_data,
                             .msg_controllen = sizeof control_data};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_CREDENTIALS;
    head->cmsg_len = CMSG_LEN(sizeof forged);
    memcpy(CMSG_DATA(head), &forged, sizeof forged);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends))
        return -1;
    return sendmsg(ends[0], &message, 0);
}

/* --- Terminals --- */

ATTEMPT(another_line_discipline) {
    int main = open("/dev/ptmx", O_RDWR | O_NOCTTY), null = 27 /* N_NULL */;
    return ioctl(main, TIOCSETD, &null);
}

static const struct {
    const char *name;
    long (*attempt)(void);
} all[] = {
#define ROW(name) {#name, try_##name}
    ROW(clone_mount_namespace), ROW(clone_pid_namespace), ROW(clone_network_namespace),
    ROW(clone_ipc_namespace), ROW(clone_uts_namespace), ROW(clone_cgroup_namespace),
    ROW(unshare_time_namespace), ROW(clone_user_namespace), ROW(enter_own_namespaces_by_pidfd),
    ROW(detach_proc), ROW(bind_the_hosts_programs), ROW(mount_an_overlay_of_the_hosts_files),
    ROW(mount_devpts_anew), ROW(write_user_map), ROW(write_group_map),
    ROW(set_host_name), ROW(set_domain_name), ROW(user_namespace_from_a_thread),
    ROW(user_namespace_after_vfork), ROW(user_namespace_of_a_program_in_memory),
    ROW(user_namespace_of_a_program_by_descriptor), ROW(user_namespace_of_a_program_by_link),
    ROW(user_namespace_of_a_sibling), ROW(user_namespace_behind_an_own_filter),
    ROW(user_namespace_behind_an_own_log_filter), ROW(user_namespace_by_an_own_supervisor),
#ifdef __x86_64__
    ROW(user_namespace_by_a_debugger),
#endif
    ROW(clear_secure_bits), ROW(take_a_capability), ROW(raise_an_ambient_capability),
    ROW(become_root), ROW(become_roots_group), ROW(become_another_user), ROW(set_groups),
    ROW(give_a_file_capabilities), ROW(set_a_trusted_attribute), ROW(set_a_security_attribute),
    ROW(make_a_file_immutable), ROW(map_address_zero), ROW(host_file_chmod), ROW(host_file_chown),
    ROW(host_file_times), ROW(host_file_attribute), ROW(host_file_attribute_removed),
    ROW(host_file_flags), ROW(host_file_truncate_by_open), ROW(host_file_truncate),
    ROW(host_file_hard_link), ROW(host_file_hard_link_by_descriptor), ROW(host_file_exchange),
    ROW(host_file_rename), ROW(host_file_unlink), ROW(host_dir_new_directory),
    ROW(host_dir_new_link), ROW(host_dir_new_fifo), ROW(host_dir_new_file),
    ROW(host_dir_nameless_file), ROW(host_dir_new_socket), ROW(host_dir_own_file_moved_in),
    ROW(device_directory_new_file), ROW(device_times), ROW(see_kernel_symbols),
    ROW(see_kernel_modules), ROW(see_control_groups), ROW(see_the_hosts_logs), ROW(see_roots_home),
    ROW(see_the_boot_partition), ROW(see_other_devices), ROW(see_physical_addresses),
    ROW(see_inits_namespaces), ROW(see_inits_call), ROW(see_inits_memory_in_pages),
    ROW(see_inits_io), ROW(clear_inits_references), ROW(write_inits_memory),
    ROW(push_out_inits_memory), ROW(move_inits_group), ROW(see_inits_robust_list),
    ROW(attach_to_init), ROW(slow_init_with_its_user), ROW(slow_init_with_its_group),
    ROW(slow_inits_timers), ROW(rename_init), ROW(end_init_by_a_readable_pipe),
    ROW(take_inits_namespaces_by_pidfd), ROW(deadline_scheduling), ROW(real_time_input_and_output),
    ROW(be_nicer_to_oneself), ROW(lock_much_memory), ROW(enlarge_a_pipe),
    ROW(a_message_queue_beyond_the_limit), ROW(be_spared_when_memory_runs_out), ROW(dump_core),
    ROW(more_open_files), ROW(more_processes), ROW(huge_pages), ROW(huge_pages_in_a_file),
    ROW(huge_pages_in_shared_memory), ROW(memory_out_of_the_kernels_sight), ROW(socket_families),
    ROW(protocol_mptcp), ROW(protocol_mptcp_of_ipv6), ROW(protocol_mptcp_by_high_bits),
    ROW(protocol_udplite), ROW(take_loopback_down), ROW(add_a_route), ROW(add_an_address),
    ROW(shape_traffic), ROW(mark_packets), ROW(force_a_receive_buffer),
    ROW(speak_for_other_addresses), ROW(repair_a_connection), ROW(send_anothers_credentials),
    ROW(another_line_discipline),
};
static size_t at;

/* What an attempt outside works on. */
static void prepare(void) {
    for (const char *const *name = (const char *const[]){"own", "linked", "host/env", "host/new", NULL};
         *name; name++)
        if (remove(*name))
            errno = 0;
    rmdir("host/new");
    if (!control)
        return;
    mkdir("host", 0755);
    mkdir("host/dir", 0755);
    close(open("host/env", O_CREAT | O_WRONLY, 0755));
}

static void step(const char *name) {
    if (control)
        own_namespaces();
    long result = all[at].attempt();
    report(name, result);
    if (child)
        kill(child, SIGKILL);
}

int main(int argc, char **argv) {
    self = argv[0];
    const char *what = argc > 1 ? argv[1] : "";
    control = !strcmp(what, "control");
    for (at = 0; at < sizeof all / sizeof *all; at++) {
        if (!strcmp(what, "only")) {
            if (!strcmp(argv[2], all[at].name))
                return all[at].attempt() < 0 ? errno : 0;
            continue;
        }
        prepare();
        apart(all[at].name, step);
    }
    end();
}
