/* lb_health.h: health checks over one shared runtime, for C and what calls C.
 *
 * A monitor is a set of targets with the same settings, checked repeatedly from lb_monitor_start until lb_monitor_stop or
 * lb_monitor_free. Reading a health state does no I/O. Every call may be made from any thread at any time, and none ends
 * the program: failures give a code. Each check in flight has a descriptor, and HTTP checks keep one for each target, so
 * raise RLIMIT_NOFILE for many targets.
 *
 * Written by `cargo xtask docs` from lb-userspace/capi/src; link with -llb_health.
 */

#ifndef LB_HEALTH_H
#define LB_HEALTH_H

#include <stddef.h>
#include <stdint.h>

// Version of this interface. It changes when programs compiled with an older header would not work.
#define LB_HEALTH_VERSION 1

// Maximum checks in flight, of all monitors of a process. Further due checks wait for their turn.
#define LB_HEALTH_MAX_IN_FLIGHT 4096

// The result of a call. Calls that return a number return one of these, all negative, on failure.
enum lb_code
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Done.
  LB_CODE_OK = 0,
  // A pointer is null that must not be.
  LB_CODE_NULL_POINTER = -1,
  // A text is not UTF-8.
  LB_CODE_NOT_UTF8 = -2,
  // The settings are invalid; lb_monitor_new gives the reason.
  LB_CODE_BAD_SETTINGS = -3,
  // The address is not of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`.
  LB_CODE_BAD_ADDRESS = -4,
  // No such monitor: never created, or freed.
  LB_CODE_NO_MONITOR = -5,
  // The monitor has no such target: never added, or removed.
  LB_CODE_NO_TARGET = -6,
  // The thread that makes all checks cannot be started.
  LB_CODE_NO_THREAD = -7,
  // A defect of this library: a call ended abnormally and may be half done.
  LB_CODE_DEFECT = -8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum lb_code lb_code;
#else
typedef int32_t lb_code;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The health state of a target.
enum lb_health
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // No check has given a result yet, or the monitor does not run.
  LB_HEALTH_UNCHECKED = 0,
  // Checks succeed.
  LB_HEALTH_UP = 1,
  // Checks fail.
  LB_HEALTH_DOWN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum lb_health lb_health;
#else
typedef int32_t lb_health;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A set of targets with the same settings. A number and no pointer: 0 is none, and no number is used twice.
typedef uint64_t lb_monitor;

// The status of a target. Counts are since it was added.
typedef struct {
  // Its number, from lb_monitor_add.
  uint32_t target;
  // The health state.
  lb_health health;
  // Finished checks: successes, failures, and checks that this machine could not make.
  uint64_t attempts;
  // Checks that succeeded.
  uint64_t successes;
  // Checks that failed.
  uint64_t failures;
  // Consecutive successes up to now.
  uint32_t consecutive_successes;
  // Consecutive failures up to now.
  uint32_t consecutive_failures;
  // Duration of the latest success in nanoseconds; 0 before the first.
  uint64_t latency_ns;
} lb_status;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// LB_HEALTH_VERSION of the library itself.
uint32_t lb_health_version(void);

// The meaning of a code, as text; any number is allowed. The text lives as long as the program.
const char *lb_code_text(int code);

// Creates a stopped monitor without targets, and writes its number to `monitor`.
//
// `settings` are the keys of a [service.health] table of lb's configuration file, one a line:
//
//     kind = "http"
//     path = "/health"
//     interval = "2s"
//
// If they are invalid, all their errors are written to `error`, a text of at most `error_size` bytes including its
// end; `error` may be null.
//
// `settings` is null or a text with its end; `monitor` is null or can be written; `error` is null or has room for
// `error_size` bytes.
lb_code lb_monitor_new(const char *settings,
                       lb_monitor *monitor,
                       char *error,
                       size_t error_size);

// Stops all checks of a monitor and frees it. Calls with it in other threads end as if it still existed.
lb_code lb_monitor_free(lb_monitor monitor);

// Adds a target, of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`, and writes its number to `target`, unless that
// is null. An existing target keeps its number. A running monitor checks the target at once.
//
// `address` is null or a text with its end; `target` is null or can be written.
lb_code lb_monitor_add(lb_monitor monitor,
                       const char *address,
                       uint32_t *target);

// Removes a target, and cancels its check in flight. Its number is not used again.
lb_code lb_monitor_remove(lb_monitor monitor, uint32_t target);

// Checks all targets from now on, including later ones. Does nothing if the monitor runs already. One thread makes the
// checks of all monitors of the process; it does not exist in a forked child.
lb_code lb_monitor_start(lb_monitor monitor);

// Stops all checks. Health states are dropped, counts stay.
lb_code lb_monitor_stop(lb_monitor monitor);

// 1 if the target is up; 0 if it is down or unchecked, or if the monitor does not run; a negative lb_code on failure.
int64_t lb_monitor_is_healthy(lb_monitor monitor,
                              uint32_t target);

// Writes the status of one target.
//
// `status` is null or can be written.
lb_code lb_monitor_stats(lb_monitor monitor, uint32_t target, lb_status *status);

// Writes the status of every target, in order of their numbers, into an array of `capacity` elements. Returns the
// number of targets, which may be more than were written; a negative lb_code on failure. With `capacity` 0 it only
// counts, and `statuses` may be null.
//
// `statuses` is null or has room for `capacity` elements.
int64_t lb_monitor_status(lb_monitor monitor,
                          lb_status *statuses,
                          size_t capacity);

// Writes the latest error of a target as text, such as "connection refused by 10.0.0.11:8080", also after a success,
// and also an error that does not count against it; an empty text if there was none. Writes at most `size` bytes
// including the end, truncated if necessary; `text` may be null if `size` is 0. Returns the length of the whole text
// without its end; a negative lb_code on failure.
//
// `text` is null or has room for `size` bytes.
int64_t lb_monitor_last_error(lb_monitor monitor,
                              uint32_t target,
                              char *text,
                              size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LB_HEALTH_H */
