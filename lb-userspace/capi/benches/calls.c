/* What calls of lb_health.h cost from C, on a monitor of 1,000 targets that runs. The argument is an address of this
 * host's 127.0.0.0/8 that refuses. Each line is a call and its nanoseconds; fails where a call does. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lb_health.h"

enum { TARGETS = 1000, PATIENCE_SECONDS = 60 };

static lb_status statuses[TARGETS];

static void must(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static lb_monitor made(void)
{
    lb_monitor monitor = 0;
    must(lb_monitor_new("kind = \"tcp\"\ninterval = \"1h\"\ndown_interval_max = \"1h\"\n", &monitor, NULL, 0)
             == LB_CODE_OK,
         "lb_monitor_new");
    return monitor;
}

static int64_t unchecked(lb_monitor monitor)
{
    int64_t count = 0;
    must(lb_monitor_status(monitor, statuses, TARGETS) == TARGETS, "lb_monitor_status");
    for (int i = 0; i < TARGETS; i++)
        count += statuses[i].attempts == 0;
    return count;
}

/* Prints the time of each of `count` executions of a statement that has `i` for the number of its turn. */
#define MEASURE(name, count, statement)                                           \
    do {                                                                          \
        const double start = nanoseconds();                                       \
        for (uint32_t i = 0; i < (count); i++)                                    \
            statement;                                                            \
        printf("%s %.1f\n", name, (nanoseconds() - start) / (count));             \
    } while (0)

int main(int argc, char **argv)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    const time_t end = time(NULL) + PATIENCE_SECONDS;
    char text[128];
    lb_status status;
    must(argc == 2, "reading the argument");
    const lb_monitor monitor = made();
    for (int i = 0; i < TARGETS; i++) {
        char address[64];
        snprintf(address, sizeof address, "127.0.%d.%d%s", i >> 8, i & 255, strrchr(argv[1], ':'));
        must(lb_monitor_add(monitor, address, NULL) == LB_CODE_OK, "lb_monitor_add");
    }
    must(lb_monitor_start(monitor) == LB_CODE_OK, "lb_monitor_start");
    while (unchecked(monitor) > 0) {
        must(time(NULL) < end, "checking all targets");
        nanosleep(&pause, NULL);
    }
    MEASURE("is_healthy", 2000000, must(lb_monitor_is_healthy(monitor, i % TARGETS) == 0, "lb_monitor_is_healthy"));
    MEASURE("stats", 2000000, must(lb_monitor_stats(monitor, i % TARGETS, &status) == LB_CODE_OK, "lb_monitor_stats"));
    MEASURE("status of 1000", 5000, unchecked(monitor));
    MEASURE("last_error", 200000,
            must(lb_monitor_last_error(monitor, i % TARGETS, text, sizeof text) > 0, "lb_monitor_last_error"));
    MEASURE("new and free", 20000, must(lb_monitor_free(made()) == LB_CODE_OK, "lb_monitor_free"));
    return 0;
}
