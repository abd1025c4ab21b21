//! The only place that talks to the kernel's BPF: loading, pins, maps, counters, neighbours.
