// Watches servers and prints each change of their health:
//
//	example [-settings 'kind = "http"'] [-for 10s] 10.0.0.11:8080 10.0.0.12:8080
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"lbhealth/lbhealth"
)

// look is the time between two readings of all verdicts: one call into C each.
const look = 50 * time.Millisecond

func main() {
	settings := flag.String("settings", `kind = "tcp"`, "keys of a [service.health] table, one a line")
	end := flag.Duration("for", 0, "how long to watch; for ever where 0")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := watch(*settings, flag.Args(), *end); err != nil {
		log.Fatal(err)
	}
}

func watch(settings string, addresses []string, end time.Duration) error {
	monitor, err := lbhealth.New(settings)
	if err != nil {
		return err
	}
	defer monitor.Close()
	names := map[lbhealth.Target]string{}
	for _, address := range addresses {
		target, err := monitor.Add(address)
		if err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		names[target] = address
	}
	if err := monitor.Start(); err != nil {
		return err
	}
	var over <-chan time.Time
	if end > 0 {
		over = time.After(end)
	}
	known := map[lbhealth.Target]lbhealth.Health{}
	for ticks := time.NewTicker(look); ; {
		select {
		case <-over:
			return nil
		case <-ticks.C:
		}
		statuses, err := monitor.Statuses()
		if err != nil {
			return err
		}
		for _, status := range statuses {
			if status.Health == known[status.Target] {
				continue
			}
			known[status.Target] = status.Health
			switch status.Health {
			case lbhealth.Down:
				fmt.Printf("%s down: %s\n", names[status.Target], monitor.LastError(status.Target))
			case lbhealth.Up:
				fmt.Printf("%s up, latest check took %v\n", names[status.Target], status.Latency)
			}
		}
	}
}
