// Package lbhealth checks the health of servers through lb_health.h. Checks run on one thread of the C library, for all
// monitors of the process; reading a verdict does no I/O and blocks on no network.
package lbhealth

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#cgo LDFLAGS: -llb_health
#include <stdlib.h>
#include "lb_health.h"
*/
import "C"

import (
	"errors"
	"time"
	"unsafe"
)

// Health is the verdict about a target.
type Health int32

// The verdicts.
const (
	Unchecked Health = C.LB_HEALTH_UNCHECKED
	Up        Health = C.LB_HEALTH_UP
	Down      Health = C.LB_HEALTH_DOWN
)

// String gives the word that lb uses.
func (h Health) String() string {
	switch h {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unchecked"
	}
}

// Code is the failure of a call.
type Code int64

// Error gives the words of the library.
func (c Code) Error() string { return C.GoString(C.lb_code_text(C.int(c))) }

// ErrNoMonitor is what every call with a closed monitor gives.
const ErrNoMonitor = Code(C.LB_CODE_NO_MONITOR)

// Target is a target's number within its monitor.
type Target uint32

// Status is what is known about a target. Counts are since it was added.
type Status struct {
	Target                                    Target
	Health                                    Health
	Attempts, Successes, Failures             uint64
	ConsecutiveSuccesses, ConsecutiveFailures uint32
	Latency                                   time.Duration // of the latest success
}

// Monitor is a set of targets that are checked alike. Its methods may be called by many goroutines.
type Monitor struct{ id C.lb_monitor }

// errorRoom is how many bytes of a message are read.
const errorRoom = 4096

// New makes a monitor at rest. settings are the keys of a [service.health] table, one a line.
func New(settings string) (*Monitor, error) {
	text := C.CString(settings)
	defer C.free(unsafe.Pointer(text))
	room := (*C.char)(C.calloc(1, errorRoom))
	defer C.free(unsafe.Pointer(room))
	monitor := &Monitor{}
	switch code := C.lb_monitor_new(text, &monitor.id, room, errorRoom); code {
	case C.LB_CODE_OK:
		return monitor, nil
	case C.LB_CODE_BAD_SETTINGS:
		return nil, errors.New(C.GoString(room))
	default:
		return nil, Code(code)
	}
}

// Add adds a target such as 10.0.0.11:8080; one that is there already keeps its number.
func (m *Monitor) Add(address string) (Target, error) {
	text := C.CString(address)
	defer C.free(unsafe.Pointer(text))
	var target C.uint32_t
	err := failure(C.lb_monitor_add(m.id, text, &target))
	return Target(target), err
}

// Remove removes a target; its number is not used again.
func (m *Monitor) Remove(target Target) error {
	return failure(C.lb_monitor_remove(m.id, C.uint32_t(target)))
}

// Start checks all targets from now on, also those that are added later.
func (m *Monitor) Start() error { return failure(C.lb_monitor_start(m.id)) }

// Stop ends all checks. Verdicts are forgotten, counts stay.
func (m *Monitor) Stop() error { return failure(C.lb_monitor_stop(m.id)) }

// Close stops all checks and forgets the monitor.
func (m *Monitor) Close() error { return failure(C.lb_monitor_free(m.id)) }

// IsHealthy says whether a target is up; false where the monitor or the target is gone.
func (m *Monitor) IsHealthy(target Target) bool {
	return C.lb_monitor_is_healthy(m.id, C.uint32_t(target)) == 1
}

// LastError gives the latest error of a target in words; empty where there was none.
func (m *Monitor) LastError(target Target) string {
	room := (*C.char)(C.calloc(1, errorRoom))
	defer C.free(unsafe.Pointer(room))
	if C.lb_monitor_last_error(m.id, C.uint32_t(target), room, errorRoom) < 0 {
		return ""
	}
	return C.GoString(room)
}

// Statuses gives what is known about every target, in order of their numbers: one call for all of them.
func (m *Monitor) Statuses() ([]Status, error) {
	for room := 16; ; {
		raw := make([]C.lb_status, room)
		count := C.lb_monitor_status(m.id, &raw[0], C.size_t(room))
		if count < 0 {
			return nil, Code(count)
		}
		if int(count) > room {
			room = int(count)
			continue
		}
		statuses := make([]Status, count)
		for i := range statuses {
			statuses[i] = status(&raw[i])
		}
		return statuses, nil
	}
}

func status(raw *C.lb_status) Status {
	return Status{
		Target:               Target(raw.target),
		Health:               Health(raw.health),
		Attempts:             uint64(raw.attempts),
		Successes:            uint64(raw.successes),
		Failures:             uint64(raw.failures),
		ConsecutiveSuccesses: uint32(raw.consecutive_successes),
		ConsecutiveFailures:  uint32(raw.consecutive_failures),
		Latency:              time.Duration(raw.latency_ns),
	}
}

func failure(code C.lb_code) error {
	if code == C.LB_CODE_OK {
		return nil
	}
	return Code(code)
}
