// peak COMMAND...: runs the command and prints the largest number of KiB that it had resident (ru_maxrss). A program of its own
// and a small one, because the kernel counts what the process had before execve too. gcc -O2 -static -o peak peak.c
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
extern char **environ;

int main(int count, char **args) {
    pid_t pid;
    int status;
    struct rusage usage;
    if (count < 2 || posix_spawnp(&pid, args[1], 0, 0, args + 1, environ) || wait4(pid, &status, 0, &usage) < 0) {
        perror("peak");
        return 127;
    }
    // On standard error: a container holds standard output open.
    fprintf(stderr, "%ld\n", usage.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
