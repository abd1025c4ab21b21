/* lb_health.h: health checks over one shared runtime, for C and what calls C.
 *
 * A monitor is a set of targets that are checked alike, again and again, from lb_monitor_start until lb_monitor_stop or
 * lb_monitor_free. Reading a verdict does no I/O. Every call may be made from any thread at any time, and none ends the
 * program: what cannot be done gives a code. Checks in flight have a descriptor each, and HTTP checks keep one for
 * each target, so raise RLIMIT_NOFILE for many targets.
 *
 * Written by `cargo xtask docs` from lb-userspace/capi/src; link with -llb_health.
 */

#ifndef LB_HEALTH_H
#define LB_HEALTH_H

#include <stddef.h>
#include <stdint.h>

// Version of this interface: another number where a program that was compiled with an older header would not work.
#define LB_HEALTH_VERSION 1

// Checks in flight at most, of all monitors of a process. One that is due beyond that waits for its turn.
#define LB_HEALTH_MAX_IN_FLIGHT 4096

// What became of a call. Calls that return a number return one of these, all negative, where they fail.
enum lb_code
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Done.
  LB_CODE_OK = 0,
  // A pointer that must not be null is.
  LB_CODE_NULL_POINTER = -1,
  // A text is not UTF-8.
  LB_CODE_NOT_UTF8 = -2,
  // The settings make no check; lb_monitor_new says why.
  LB_CODE_BAD_SETTINGS = -3,
  // The address is not of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`.
  LB_CODE_BAD_ADDRESS = -4,
  // No such monitor: never made, or freed.
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

// The verdict about a target.
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

// A set of targets that are checked alike. A number and no pointer: 0 is none, none is used twice.
typedef uint64_t lb_monitor;

// What is known about a target. Counts are since it was added.
typedef struct {
  // Its number, as lb_monitor_add gave it.
  uint32_t target;
  // The verdict.
  lb_health health;
  // Checks that ended: successes, failures, and those that could not be made for reasons of this machine.
  uint64_t attempts;
  // Checks that succeeded.
  uint64_t successes;
  // Checks that failed.
  uint64_t failures;
  // Latest results in a row that were successes.
  uint32_t consecutive_successes;
  // Latest results in a row that were failures.
  uint32_t consecutive_failures;
  // Nanoseconds that the latest success took; 0 before the first.
  uint64_t latency_ns;
} lb_status;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// LB_HEALTH_VERSION of the library itself.
uint32_t lb_health_version(void);

// What a code means, in words; any number is allowed. The text lives as long as the program.
const char *lb_code_text(int code);

// Makes a monitor without targets, at rest, and writes its number to `monitor`.
//
// `settings` are the keys of a [service.health] table of lb's configuration file, one a line:
//
//     kind = "http"
//     path = "/health"
//     interval = "2s"
//
// Where they are no good, everything that is wrong with them is written to `error`, a text of at most `error_size` bytes
// with its end; `error` may be null.
//
// `settings` is null or a text with its end; `monitor` is null or can be written; `error` is null or has room for
// `error_size` bytes.
lb_code lb_monitor_new(const char *settings,
                       lb_monitor *monitor,
                       char *error,
                       size_t error_size);

// Stops all checks of a monitor and forgets it. Calls with it that other threads are in end as if it were there.
lb_code lb_monitor_free(lb_monitor monitor);

// Adds a target, of the form `10.0.0.11:8080` or `[2001:db8::1]:8080`, and writes its number to `target`, unless that is
// null. One that the monitor has already keeps its number. It is checked at once where the monitor runs.
//
// `address` is null or a text with its end; `target` is null or can be written.
lb_code lb_monitor_add(lb_monitor monitor,
                       const char *address,
                       uint32_t *target);

// Removes a target: a check in flight is given up. Its number is not used again.
lb_code lb_monitor_remove(lb_monitor monitor, uint32_t target);

// Checks all targets from now on, also those that are added later. Does nothing where it runs already. Checks are made on
// one thread for all monitors of the process, which is not there any more in a child that was forked.
lb_code lb_monitor_start(lb_monitor monitor);

// Stops all checks. Verdicts are forgotten, counts stay.
lb_code lb_monitor_stop(lb_monitor monitor);

// 1 where the target is up, 0 where it is down, unchecked, or the monitor does not run; a negative lb_code where the call
// fails.
int64_t lb_monitor_is_healthy(lb_monitor monitor,
                              uint32_t target);

// Writes what is known about one target.
//
// `status` is null or can be written.
lb_code lb_monitor_stats(lb_monitor monitor, uint32_t target, lb_status *status);

// Writes what is known about every target, in order of their numbers, into an array of `capacity` elements. Returns how
// many targets there are, which may be more than were written; a negative lb_code where the call fails. With
// `capacity` 0 it only counts, and `statuses` may be null.
//
// `statuses` is null or has room for `capacity` elements.
int64_t lb_monitor_status(lb_monitor monitor,
                          lb_status *statuses,
                          size_t capacity);

// Writes the latest error of a target in words, such as "connection refused by 10.0.0.11:8080", also after a success
// and also one that does not count against it; an empty text where there was none. At most `size` bytes with the end are
// written, cut where it does not fit; `text` may be null where `size` is 0. Returns the length of the whole text, its end
// not counted; a negative lb_code where the call fails.
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
