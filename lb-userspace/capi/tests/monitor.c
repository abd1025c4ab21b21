/* Uses lb_health.h as a C program would; ends with 1 and the line at fault where it does not do what it says.
 * Arguments: an address that accepts, one that refuses, and one that answers HTTP requests with status 503. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lb_health.h"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

enum { READERS = 4, MORE = 50, PATIENCE_SECONDS = 20 };

static const char *const FAST = "interval = \"10ms\"\nfast_interval = \"5ms\"\ndown_interval_max = \"10ms\"\n";

static lb_monitor made(const char *kind)
{
    char settings[256], error[512] = "";
    lb_monitor monitor = 0;
    snprintf(settings, sizeof settings, "%s%s", kind, FAST);
    if (lb_monitor_new(settings, &monitor, error, sizeof error) != LB_CODE_OK) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    return monitor;
}

static lb_status status_of(lb_monitor monitor, uint32_t target)
{
    lb_status status;
    CHECK(lb_monitor_stats(monitor, target, &status) == LB_CODE_OK);
    CHECK(status.target == target);
    return status;
}

/* Looks until the target has the verdict, and results of its own. */
static lb_status wait_for(lb_monitor monitor, uint32_t target, lb_health health, uint64_t attempts)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const time_t end = time(NULL) + PATIENCE_SECONDS;
    for (;;) {
        lb_status status = status_of(monitor, target);
        if (status.health == health && status.attempts >= attempts)
            return status;
        CHECK(time(NULL) < end);
        nanosleep(&pause, NULL);
    }
}

static void settings_are_judged(void)
{
    char error[512] = "", little[8];
    lb_monitor monitor = 7;
    const char *wrong = "kind = \"tcp\"\nrise = 0\n";
    CHECK(lb_monitor_new(wrong, &monitor, error, sizeof error) == LB_CODE_BAD_SETTINGS);
    CHECK(monitor == 7);
    CHECK(strstr(error, "settings:2:8: error: rise 0") == error);
    CHECK(lb_monitor_new(wrong, &monitor, little, sizeof little) == LB_CODE_BAD_SETTINGS);
    CHECK(strcmp(little, "setting") == 0);
    CHECK(lb_monitor_new(NULL, &monitor, error, sizeof error) == LB_CODE_NULL_POINTER);
    CHECK(lb_monitor_start(monitor) == LB_CODE_NO_MONITOR);
    CHECK(strlen(lb_code_text(LB_CODE_NO_MONITOR)) > 0);
}

static void verdicts_are_right(const char *good, const char *bad)
{
    lb_monitor monitor = made("kind = \"tcp\"\n");
    uint32_t up, down, again;
    CHECK(lb_monitor_add(monitor, good, &up) == LB_CODE_OK);
    CHECK(lb_monitor_is_healthy(monitor, up) == 0);
    CHECK(status_of(monitor, up).health == LB_HEALTH_UNCHECKED);
    CHECK(lb_monitor_start(monitor) == LB_CODE_OK);
    CHECK(lb_monitor_add(monitor, bad, &down) == LB_CODE_OK);
    CHECK(lb_monitor_add(monitor, bad, &again) == LB_CODE_OK && again == down);

    lb_status status = wait_for(monitor, up, LB_HEALTH_UP, 3);
    CHECK(status.successes == status.attempts && status.consecutive_successes == status.attempts);
    CHECK(status.failures == 0 && status.latency_ns > 0);
    CHECK(lb_monitor_is_healthy(monitor, up) == 1);
    status = wait_for(monitor, down, LB_HEALTH_DOWN, 3);
    CHECK(status.failures == status.attempts && status.successes == 0 && status.latency_ns == 0);
    CHECK(lb_monitor_is_healthy(monitor, down) == 0);

    char expected[128], text[128];
    snprintf(expected, sizeof expected, "connection refused by %s", bad);
    CHECK(lb_monitor_last_error(monitor, down, text, sizeof text) == (int64_t)strlen(expected));
    CHECK(strcmp(text, expected) == 0);
    CHECK(lb_monitor_last_error(monitor, up, text, sizeof text) == 0 && text[0] == 0);

    /* The third element belongs to someone else. */
    lb_status all[3];
    memset(all, 0x5a, sizeof all);
    CHECK(lb_monitor_status(monitor, all, 3) == 2);
    CHECK(all[0].target == up && all[0].health == LB_HEALTH_UP);
    CHECK(all[1].target == down && all[1].health == LB_HEALTH_DOWN);
    CHECK(all[2].target == 0x5a5a5a5a);
    memset(all, 0x5a, sizeof all);
    CHECK(lb_monitor_status(monitor, all, 1) == 2);
    CHECK(all[0].target == up && all[1].target == 0x5a5a5a5a);

    CHECK(lb_monitor_stop(monitor) == LB_CODE_OK);
    CHECK(lb_monitor_is_healthy(monitor, up) == 0);
    CHECK(lb_monitor_start(monitor) == LB_CODE_OK);
    wait_for(monitor, up, LB_HEALTH_UP, 1);
    CHECK(lb_monitor_remove(monitor, up) == LB_CODE_OK);
    CHECK(lb_monitor_is_healthy(monitor, up) == LB_CODE_NO_TARGET);
    CHECK(lb_monitor_free(monitor) == LB_CODE_OK);
    CHECK(lb_monitor_free(monitor) == LB_CODE_NO_MONITOR);
    CHECK(lb_monitor_is_healthy(monitor, down) == LB_CODE_NO_MONITOR);
}

static void errors_are_in_words(const char *web)
{
    lb_monitor monitor = made("kind = \"http\"\npath = \"/health\"\n");
    uint32_t target;
    char text[128];
    char expected[128];
    snprintf(expected, sizeof expected, "status 503 from http://%s/health, expected 200", web);
    CHECK(lb_monitor_add(monitor, web, &target) == LB_CODE_OK);
    CHECK(lb_monitor_start(monitor) == LB_CODE_OK);
    wait_for(monitor, target, LB_HEALTH_DOWN, 1);
    CHECK(lb_monitor_last_error(monitor, target, text, sizeof text) > 0);
    CHECK(strcmp(text, expected) == 0);
    CHECK(lb_monitor_free(monitor) == LB_CODE_OK);
}

static void *reads_until_freed(void *argument)
{
    const lb_monitor monitor = *(const lb_monitor *)argument;
    lb_status all[MORE];
    char text[16];
    int64_t count;
    while ((count = lb_monitor_status(monitor, all, MORE)) >= 0) {
        CHECK(count <= MORE);
        for (int64_t i = 0; i < count; i++) {
            int64_t length = lb_monitor_last_error(monitor, all[i].target, text, sizeof text);
            CHECK(length >= 0 || length == LB_CODE_NO_TARGET || length == LB_CODE_NO_MONITOR);
        }
    }
    CHECK(count == LB_CODE_NO_MONITOR);
    return NULL;
}

static void threads_may_share_a_monitor(const char *bad)
{
    lb_monitor monitor = made("kind = \"tcp\"\n");
    const int port = atoi(strrchr(bad, ':') + 1);
    uint32_t target;
    pthread_t readers[READERS];
    CHECK(lb_monitor_start(monitor) == LB_CODE_OK);
    for (int i = 0; i < READERS; i++)
        CHECK(pthread_create(&readers[i], NULL, reads_until_freed, &monitor) == 0);
    for (int i = 1; i <= MORE; i++) {
        char address[64];
        snprintf(address, sizeof address, "127.0.1.%d:%d", i, port);
        CHECK(lb_monitor_add(monitor, address, &target) == LB_CODE_OK);
        if (i % 2)
            CHECK(lb_monitor_remove(monitor, target) == LB_CODE_OK);
    }
    wait_for(monitor, target, LB_HEALTH_DOWN, 1);
    CHECK(lb_monitor_free(monitor) == LB_CODE_OK);
    for (int i = 0; i < READERS; i++)
        CHECK(pthread_join(readers[i], NULL) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    CHECK(lb_health_version() == LB_HEALTH_VERSION);
    settings_are_judged();
    verdicts_are_right(argv[1], argv[2]);
    errors_are_in_words(argv[3]);
    threads_may_share_a_monitor(argv[2]);
    return 0;
}
