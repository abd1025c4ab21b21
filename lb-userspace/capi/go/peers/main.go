// What a health checker of Go's standard library costs, and what calls of lb_health.h cost from Go. Called by the
// benchmark health_peers, which makes the same checks beside it:
//
//	peers check KIND ADDRESS COUNT CONCURRENT
//	peers calls ADDRESS
//
// The first prints nanoseconds of a clock and of this process's processors for each check, and the share of checks that
// failed in percent; the second a line for each call, its name and nanoseconds.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"lbhealth/lbhealth"
)

const timeout = 5 * time.Second

// check makes one check; an error is its result.
type check func() error

// checkers gives a checker of a kind for one target, as one would write it: a kept connection has a client of its own.
var checkers = map[string]func(address string) check{
	"tcp": func(address string) check {
		return func() error {
			conn, err := net.DialTimeout("tcp", address, timeout)
			if err != nil {
				return err
			}
			return conn.Close()
		}
	},
	"http-new":  func(address string) check { return get(address, true) },
	"http-kept": func(address string) check { return get(address, false) },
	"dns": func(address string) check {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", address)
		}
		resolver := &net.Resolver{PreferGo: true, Dial: dial}
		return func() error {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			_, err := resolver.LookupNetIP(ctx, "ip4", "a.example.")
			return err
		}
	},
}

func get(address string, fresh bool) check {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: fresh}}
	url := "http://" + address + "/"
	return func() error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		return err
	}
}

func processors() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// rounds makes count checks, as many at once as there are checks in the list, each waiting for all of its round.
func rounds(checks []check, count int) (failed int) {
	failures := make([]int, len(checks))
	for done := 0; done < count; done += len(checks) {
		if len(checks) == 1 {
			if checks[0]() != nil {
				failures[0]++
			}
			continue
		}
		var group sync.WaitGroup
		group.Add(len(checks))
		for i := range checks {
			go func(i int) {
				defer group.Done()
				if checks[i]() != nil {
					failures[i]++
				}
			}(i)
		}
		group.Wait()
	}
	for _, failures := range failures {
		failed += failures
	}
	return failed
}

func measure(kind, address string, count, concurrent int) {
	checks := make([]check, concurrent)
	for i := range checks {
		checks[i] = checkers[kind](address)
	}
	rounds(checks, concurrent)
	count = (count + concurrent - 1) / concurrent * concurrent
	before, start := processors(), time.Now()
	failed := rounds(checks, count)
	clock, cpu := time.Since(start), processors()-before
	fmt.Printf("%d %d %d\n", int(clock)/count, int(cpu)/count, failed*100/count)
}

func calls(address string) {
	const targets = 1000
	monitor, err := lbhealth.New("kind = \"tcp\"\ninterval = \"1h\"\ndown_interval_max = \"1h\"")
	if err != nil {
		log.Fatal(err)
	}
	defer monitor.Close()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		log.Fatal(err)
	}
	ip := net.ParseIP(host).To4()
	for i := 0; i < targets; i++ {
		ip[2], ip[3] = byte(i>>8), byte(i)
		if _, err := monitor.Add(net.JoinHostPort(ip.String(), port)); err != nil {
			log.Fatal(err)
		}
	}
	if err := monitor.Start(); err != nil {
		log.Fatal(err)
	}
	for checked := 0; checked < targets; {
		time.Sleep(10 * time.Millisecond)
		all, err := monitor.Statuses()
		if err != nil {
			log.Fatal(err)
		}
		checked = 0
		for _, status := range all {
			if status.Attempts > 0 {
				checked++
			}
		}
	}
	each := func(name string, count int, call func(i int)) {
		start := time.Now()
		for i := 0; i < count; i++ {
			call(i)
		}
		fmt.Printf("%s %.1f\n", name, float64(time.Since(start))/float64(count))
	}
	each("is_healthy", 1_000_000, func(i int) { monitor.IsHealthy(lbhealth.Target(i % targets)) })
	each("status of 1000", 2_000, func(int) {
		if all, err := monitor.Statuses(); err != nil || len(all) != targets {
			log.Fatal(err, len(all))
		}
	})
}

func main() {
	switch {
	case len(os.Args) == 6 && os.Args[1] == "check":
		count, err := strconv.Atoi(os.Args[4])
		if err != nil {
			log.Fatal(err)
		}
		concurrent, err := strconv.Atoi(os.Args[5])
		if err != nil {
			log.Fatal(err)
		}
		measure(os.Args[2], os.Args[3], count, concurrent)
	case len(os.Args) == 3 && os.Args[1] == "calls":
		calls(os.Args[2])
	default:
		log.Fatal("see the comment at the top of main.go")
	}
}
