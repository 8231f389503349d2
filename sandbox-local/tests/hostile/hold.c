/* Keeps a process that is killed from ending, as one does that waits in the kernel: until its input
 * ends. */
#include "report.h"
#include <sys/ptrace.h>

int main(int argc, char **argv) {
    pid_t pid = argc > 1 ? atoi(argv[1]) : 0;
    int status;
    report("seize", ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT));
    end();
    while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
        int is_exit = status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8);
        if (is_exit) {
            char byte;
            say("exits", "ok");
            while (read(0, &byte, 1) > 0) {
            }
        }
        ptrace(PTRACE_CONT, pid, 0, is_exit ? 0 : WSTOPSIG(status));
    }
}
