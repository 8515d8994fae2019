// step OUT LOW HIGH COMMAND...: runs a command one instruction at a time, its children too, and writes the addresses from LOW to HIGH
// that it ran, in the order of their first use, in blocks of 16 bytes. A child that executes another program runs freely.
// For scripts/hot-functions.sh. gcc -O2 -static -o step step.c
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **args) {
    if (count < 5) return 2;
    FILE *out = fopen(args[1], "w");
    unsigned long low = strtoul(args[2], 0, 0), high = strtoul(args[3], 0, 0);
    unsigned char *seen = calloc((high - low) / 16 + 1, 1);
    if (!out || !seen) return 2;
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(args[4], args + 4);
        _exit(127);
    }
    int status, code = 2;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno != EINTR) break;
        if (pid < 0) continue;
        if (!WIFSTOPPED(status)) {
            // Others may go on for as long as they like (a created container).
            if (pid == first) { code = WIFEXITED(status) ? WEXITSTATUS(status) : 128; break; }
            continue;
        }
        struct user_regs_struct registers;
        if (!ptrace(PTRACE_GETREGS, pid, 0, &registers) && registers.rip >= low && registers.rip < high) {
            unsigned long block = (registers.rip - low) / 16;
            if (!seen[block]) fprintf(out, "%lx\n", low + block * 16);
            seen[block] = 1;
        }
        int event = status >> 16, number = WSTOPSIG(status);
        // The command executes itself a second time, sealed; what a child of it executes is the container's program.
        if (event == PTRACE_EVENT_EXEC && pid != first) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, event == 0 && number != SIGTRAP && number != SIGSTOP ? number : 0);
    }
    fclose(out);
    return code;
}
