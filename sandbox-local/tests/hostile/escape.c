/* Looks for a way to other processes, to files of the host and to more rights. */
#include "report.h"
#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static void descriptors(void) {
    char list[4096] = "";
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        if (strlen(list) < sizeof list - 16)
            sprintf(list + strlen(list), "%d,", fd);
        char name[32], target[256] = "";
        sprintf(name, "fd%d", fd);
        char path[64];
        sprintf(path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) < 0)
            strcpy(target, "?");
        say(name, target);
    }
    say("fds", list);
}

/* Everything that one process may do to another, by its number. */
static void reach(const char *who, pid_t pid) {
    char name[64], path[64];
#define TRY(what, call)                                                                            \
    do {                                                                                           \
        snprintf(name, sizeof name, "%s_%s", who, what);                                           \
        report(name, call);                                                                        \
    } while (0)
#define OPEN(what, file, flags)                                                                    \
    do {                                                                                           \
        snprintf(path, sizeof path, "/proc/%d/%s", pid, file);                                     \
        TRY(what, open(path, flags));                                                              \
    } while (0)
    char byte;
    /* Where the child, being a fork, has it too. */
    struct iovec local = {&byte, 1}, remote = {(void *)say, 1};
    TRY("exists", kill(pid, 0));
    TRY("readv", process_vm_readv(pid, &local, 1, &remote, 1, 0));
    long handle = syscall(SYS_pidfd_open, pid, 0);
    TRY("pidfd", handle);
    TRY("getfd", syscall(SYS_pidfd_getfd, (int)handle, 0, 0));
    OPEN("mem", "mem", O_RDWR);
    OPEN("maps", "maps", O_RDONLY);
    OPEN("environ", "environ", O_RDONLY);
    OPEN("auxv", "auxv", O_RDONLY);
    OPEN("exe", "exe", O_RDONLY);
    OPEN("root", "root/", O_RDONLY);
    OPEN("cwd", "cwd/", O_RDONLY);
    OPEN("fd0", "fd/0", O_RDONLY);
    OPEN("fds", "fd", O_RDONLY);
    OPEN("oom", "oom_score_adj", O_WRONLY);
    OPEN("uid_map", "uid_map", O_WRONLY);
    char target[256];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    TRY("exe_link", readlink(path, target, sizeof target));
    TRY("seize", ptrace(PTRACE_SEIZE, pid, 0, 0));
}

/* How many files below can be opened for writing, and the first of them. */
static long writable(const char *dir, char *first) {
    long count = 0;
    DIR *open_dir = opendir(dir);
    if (!open_dir)
        return 0;
    for (struct dirent *entry; (entry = readdir(open_dir));) {
        char path[1024];
        /* The others can be opened by all, and check who writes. */
        if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "ns_last_pid") ||
            !strcmp(entry->d_name, "timerslack_ns") || !strcmp(entry->d_name, "attr"))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (entry->d_type == DT_DIR) {
            count += writable(path, first);
            continue;
        }
        if (entry->d_type != DT_REG)
            continue;
        int fd = open(path, O_WRONLY | O_NONBLOCK);
        if (fd >= 0) {
            if (!count++ && !*first)
                strcpy(first, path);
            close(fd);
        }
    }
    closedir(open_dir);
    return count;
}

/* Writes what is there already. */
static void write_back(const char *name, const char *path) {
    char text[64];
    int fd = open(path, O_RDWR);
    ssize_t length = pread(fd, text, sizeof text, 0);
    report(name, length > 0 ? pwrite(fd, text, length, 0) : length);
}

static void procfs(void) {
    static const char *const dirs[] = {"/proc/sys", "/proc/1", "/proc/irq", "/proc/bus",
                                       "/proc/fs",  "/sys",    "/dev/bus"};
    static const char *const files[] = {"/proc/sysrq-trigger", "/proc/kmsg", "/proc/mtrr",
                                        "/proc/sys/kernel/core_pattern"};
    static const char *const secret[] = {"/proc/kcore", "/proc/kmsg", "/proc/vmallocinfo",
                                         "/proc/slabinfo", "/proc/kpageflags", "/dev/mem",
                                         "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/fuse",
                                         "/dev/kvm", "/dev/net/tun"};
    char first[1024] = "";
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        say_number(dirs[i], writable(dirs[i], first));
    write_back("ns_last_pid", "/proc/sys/kernel/ns_last_pid");
    write_back("timerslack", "/proc/1/timerslack_ns");
    write_back("attr", "/proc/1/attr/current");
    say("first_writable", *first ? first : "none");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        report(files[i], open(files[i], O_WRONLY));
    for (size_t i = 0; i < sizeof secret / sizeof *secret; i++) {
        char name[64];
        snprintf(name, sizeof name, "read:%s", secret[i]);
        report(name, open(secret[i], O_RDONLY | O_NONBLOCK));
    }
}

/* The way out of a chroot with a directory kept open, in namespaces of its own if they can be
 * had. */
static void out_of_chroot(const char *name) {
    struct stat before, after;
    unshare(CLONE_NEWUSER);
    stat("/", &before);
    mkdir("jail", 0700);
    int top = open("/", O_RDONLY | O_DIRECTORY);
    report("chroot", chroot("jail"));
    stat("/", &after);
    say("jailed", before.st_ino == after.st_ino ? "no" : "yes");
    fchdir(top);
    report(name, chroot("."));
    rmdir("jail");
}

static void status(void) {
    char line[512];
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, file)) {
        char name[64], value[400] = "";
        if (sscanf(line, "%63[^:]: %399[^\n]", name, value) == 2)
            say(name, value);
    }
    say_number("euid", geteuid());
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "descriptors")) {
        char cwd[4096] = "?";
        say("cwd", getcwd(cwd, sizeof cwd) ? cwd : strerrorname_np(errno));
        descriptors();
    } else if (!strcmp(what, "reach")) {
        pid_t child = fork();
        if (child == 0) {
            pause();
            _exit(0);
        }
        reach("child", child);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        for (int i = 2; i < argc; i++) {
            char name[32];
            snprintf(name, sizeof name, "pid%d", i - 1);
            reach(name, atoi(argv[i]));
        }
    } else if (!strcmp(what, "procfs"))
        procfs();
    else if (!strcmp(what, "chroot"))
        apart("chroot_again", out_of_chroot);
    else if (!strcmp(what, "status"))
        status();
    else if (!strcmp(what, "exe")) {
        char path[64];
        report("self", open("/proc/self/exe", O_WRONLY));
        report("self_truncate", truncate("/proc/self/exe", 0));
        snprintf(path, sizeof path, "/proc/%s/exe", argv[2]);
        report("other_read", open(path, O_RDONLY));
        report("other_write", open(path, O_WRONLY));
        report("other_truncate", truncate(path, 0));
        report("other_chmod", chmod(path, 0));
    } else if (!strcmp(what, "signal-init")) {
        for (int number = 1; number < 65; number++)
            kill(1, number);
        report("last", kill(1, SIGKILL));
    } else if (!strcmp(what, "kill-all")) {
        signal(SIGTERM, SIG_IGN);
        report("killed", kill(-1, SIGKILL));
    } else if (!strcmp(what, "pause")) {
        end();
        pause();
    }
    end();
}
