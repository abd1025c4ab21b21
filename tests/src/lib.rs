//! Harness for the test lanes that need root: namespaces, topologies, real servers and clients, the real daemon.
//!
//! Everything is a guard: dropping it (also while a test panics) removes its objects. Names contain the process id, so
//! that test processes can run side by side, and the next one sweeps the remains of a killed one.

pub mod agent;
pub mod browser;
pub mod bulk;
pub mod capture;
pub mod client;
pub mod config;
pub mod daemon;
pub mod decap;
pub mod descriptors;
pub mod direct;
pub mod document;
pub mod flood;
pub mod flooded;
pub mod frame_counter;
pub mod frames;
pub mod hostile;
pub mod http;
pub mod lane;
pub mod lb_cli;
pub mod load_tool;
pub mod machine;
pub mod map_contents;
pub mod metrics;
pub mod netns;
pub mod nginx;
pub mod ping;
pub mod prometheus;
pub mod report;
pub mod scratch;
pub mod site;
pub mod stages;
pub mod syn_flood;
pub mod terminal;
pub mod test_run;
pub mod topology;
pub mod trap;
pub mod udp;
pub mod wait;
pub mod xdp_pass;
