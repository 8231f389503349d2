/* Speaks to the overlay below: its private attributes, its whiteouts. And races the host. */
#include "report.h"
#include <linux/fs.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void set(const char *path, const char *name, const char *value) {
    char text[128];
    snprintf(text, sizeof text, "%s:%s", name, path);
    report(text, setxattr(path, name, value, strlen(value), 0));
}

/* Makes the directory "dir", the file "file" and the file "gone" into what the overlay would take
 * for its own, under every name that an overlay uses. */
static void disguise(const char *elsewhere) {
    /* For the control: in a sandbox they are there. */
    mkdir("dir", 0755);
    static const char *const files[] = {"file", "gone", "other"};
    for (int i = 0; i < 3; i++)
        close(open(files[i], O_CREAT | O_WRONLY, 0644));
    static const char *const prefixes[] = {"user.overlay.", "trusted.overlay.",
                                           "user.overlay.overlay."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char name[128];
#define SET(path, what, value)                                                                     \
    do {                                                                                           \
        snprintf(name, sizeof name, "%s%s", prefixes[i], what);                                    \
        set(path, name, value);                                                                    \
    } while (0)
        SET("dir", "opaque", "y");
        SET("dir", "redirect", elsewhere);
        SET("dir", "origin", "x");
        SET("dir", "impure", "y");
        SET("file", "metacopy", "");
        SET("file", "redirect", elsewhere);
        SET("gone", "whiteout", "y");
        SET(".", "opaque", "x");
        SET(".", "opaque", "y");
    }
    set("file", "user.plain", "kept");
    char memory[64];
    snprintf(memory, sizeof memory, "/dev/shm/hostile-%d", getpid());
    report("whiteout", mknod("new", S_IFCHR | 0600, 0));
    report("whiteout_in_memory", mknod(memory, S_IFCHR | 0600, 0));
    unlink(memory);
    report("whiteout_by_rename",
           syscall(SYS_renameat2, AT_FDCWD, "other", AT_FDCWD, "moved", RENAME_WHITEOUT));
}

/* Until the time is over: what two names mean changes places. */
static void exchange(const char *one, const char *two, long milliseconds) {
    long rounds = 0;
    for (long end_at = now() + milliseconds; now() < end_at && access("stop", F_OK) < 0;)
        for (int i = 0; i < 100; i++, rounds++)
            if (syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, RENAME_EXCHANGE) < 0) {
                /* The host has taken one of them away: make it anew. */
                mkdir(one, 0755);
                mkdir(two, 0755);
            }
    say_number("rounds", rounds);
}

/* Grows a file for as long as somebody may be reading it. */
static void grow(const char *path, long milliseconds) {
    static char block[1 << 16];
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    for (long end_at = now() + milliseconds; now() < end_at;) {
        if (write(fd, block, sizeof block) < 0 || lseek(fd, 0, SEEK_CUR) > (64 << 20))
            ftruncate(fd, 0), lseek(fd, 0, SEEK_SET);
    }
    say_number("grown", lseek(fd, 0, SEEK_CUR));
}

static void deep(int depth) {
    int made = 0;
    for (; made < depth; made++) {
        if (mkdir("d", 0755) || chdir("d"))
            break;
    }
    close(open("leaf", O_CREAT | O_WRONLY, 0644));
    say_number("depth", made);
}

static void many(int count) {
    int made = 0;
    for (; made < count; made++) {
        char name[32];
        snprintf(name, sizeof name, "%d", made);
        int fd = open(name, O_CREAT | O_WRONLY, 0644);
        if (fd < 0)
            break;
        close(fd);
    }
    report("many", made == count ? 0 : -1);
    say_number("made", made);
}

static void special(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    report("fifo", mkfifo("fifo", 0666));
    report("socket", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&address, sizeof address));
    int fd = open("sparse", O_CREAT | O_WRONLY, 0644);
    report("sparse", ftruncate(fd, 1L << 40));
    close(open("setuid", O_CREAT | O_WRONLY, 0755));
    report("setuid", chmod("setuid", 07755));
    report("hardlink", link("setuid", "hardlink"));
    report("absolute", symlink("/etc/passwd", "absolute"));
    report("outward", symlink("../../../../../../etc/passwd", "outward"));
    report("magic", symlink("/proc/self/root/etc/passwd", "magic"));
    report("descriptor", symlink("/proc/self/fd/0", "descriptor"));
    report("loop", symlink("loop", "loop"));
    report("inside", symlink("setuid", "inside"));
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[argc - 1]) : 0;
    if (!strcmp(what, "disguise"))
        disguise(argv[2]);
    else if (!strcmp(what, "exchange"))
        exchange(argv[2], argv[3], number);
    else if (!strcmp(what, "grow"))
        grow(argv[2], number);
    else if (!strcmp(what, "deep"))
        deep(number);
    else if (!strcmp(what, "many"))
        many(number);
    else if (!strcmp(what, "special"))
        special();
    end();
}
