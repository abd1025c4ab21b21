//! Files and what they become.

use proptest::prelude::*;

use super::*;
use crate::{datapath::XdpModeChoice, state::testing};

#[test]
fn the_example_is_valid_and_shows_every_key() {
    let text = include_str!("../../../docs/example.toml");
    let config = parse(text, "example.toml").unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(config.desired.services.len(), 2);
}

#[test]
fn an_empty_file_has_the_documented_defaults() {
    let config = parse("", "lb.toml").unwrap();
    assert_eq!(config.desired, Desired::default());
    let DaemonSettings {
        interfaces,
        xdp_mode,
        socket,
        state_dir,
        metrics,
        pin_dir,
        on_exit,
    } = config.daemon;
    assert_eq!(interfaces, Vec::<String>::new());
    assert_eq!(xdp_mode, XdpModeChoice::Auto);
    assert_eq!(socket.to_str(), Some("/run/lb/lb.sock"));
    assert_eq!(state_dir.to_str(), Some("/var/lib/lb"));
    assert_eq!(metrics.to_string(), "127.0.0.1:9900");
    assert_eq!(pin_dir.to_str(), Some("/sys/fs/bpf/lb"));
    assert_eq!(on_exit, daemon::OnExit::Detach);
}

proptest! {
    #[test]
    fn export_and_parse_lose_nothing(desired in testing::any_desired()) {
        let text = export(&desired);
        let back = parse(&text, "export").unwrap_or_else(|errors| panic!("{errors:#?} in\n{text}"));
        prop_assert_eq!(Desired { revision: desired.revision, ..back.desired }, desired);
    }
}
