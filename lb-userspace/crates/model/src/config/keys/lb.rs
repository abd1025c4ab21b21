//! Keys of `[lb]`.

use super::{
    access::{Access, Lens, field, option},
    codec::{
        BOOL, ENDPOINT, HOST_NAMES, INTERFACES, IPS, PATH, PORT_NUMBER, PORTS, PREFIX_LIST, SOCKET, STRING,
        STRINGS, TIME, word,
    },
    key::{KeyTable, Separated},
    row::{
        ABSOLUTE, BOOLEAN, DURATION, FILE_PATH, PORT, PREFIXES, default, described, one_of, optional, texts,
    },
};
use crate::{
    config::daemon::{LogFormat, OnExit},
    state::xdp_mode::XdpModeChoice,
};

/// `[lb]`: the balancer as a whole.
pub const LB: KeyTable = KeyTable {
    header: "[lb]",
    prefix: "",
    about: "Settings of the balancer as a whole. The last five can change while the daemon runs; the others are read at its \
            start, where options of `lb run` override them.",
    keys: &[
        default(
            "interfaces", field!(Daemon.interfaces = INTERFACES),
            texts("list of interface names, up to 16", "IFACE", Separated::ByOptions),
            "[]",
            "Interfaces that receive clients' packets and backends' replies",
        )
        .at_start()
        .option("iface")
        .more("`--iface` adds to them. An alternative name (`ip link property add dev eth0 altname uplink`) works like the name."),
        default(
            "wait_for_interfaces", field!(Daemon.wait_for_interfaces = BOOL),
            BOOLEAN,
            "false",
            "Start although an interface is missing or none is named, and attach when it appears",
        )
        .more(
            "Until then `lb status`, `/readyz` and `lb_interface_attached` report what is missing. With `false`, a missing \
             interface, and none at all, is an error at start.",
        ),
        default("xdp_mode", field!(Daemon.xdp_mode = word()), one_of::<XdpModeChoice>(), "\"auto\"", "XDP mode to attach in").at_start().more(
            "`native` runs in the driver, `generic` in the kernel's stack and is slower. `auto` takes native where it works, \
             else generic, with a warning.",
        ),
        default("socket", field!(Daemon.socket = SOCKET), ABSOLUTE, "\"/run/lb/lb.sock\"", "Unix socket of the admin API, mode 0660").at_start(),
        optional(
            "socket_group", option!(Daemon.socket_group = STRING),
            described("group, by name or number", "GROUP"),
            ("the daemon's own group", "\"lb\""),
            "Group whose members may change everything through the socket",
        )
        .at_start(),
        optional(
            "socket_read", option!(Daemon.socket_read = SOCKET),
            ABSOLUTE,
            ("no such socket", "\"/run/lb/read.sock\""),
            "Second unix socket, mode 0660, for reading alone",
        )
        .at_start()
        .more("It answers `GET`, without `lb monitor`; everything else is refused with 403: `lb --socket /run/lb/read.sock status`."),
        optional(
            "socket_read_group", option!(Daemon.socket_read_group = STRING),
            described("group, by name or number", "GROUP"),
            ("the daemon's own group", "\"adm\""),
            "Group whose members may read through `socket_read`",
        )
        .at_start(),
        optional(
            "api_address", option!(Daemon.api_address = ENDPOINT),
            described("address and port", "ADDR"),
            ("no such listener", "\"192.0.2.1:9901\""),
            "Address that serves the admin API over TLS to clients with a certificate",
        )
        .at_start()
        .without_option()
        .more("A client without a certificate of `api_ca_file` is refused in the handshake; one whose names are in none of the three lists gets 403."),
        optional(
            "api_cert_file", option!(Daemon.api_cert_file = PATH),
            FILE_PATH,
            ("none", "\"/etc/lb/api.pem\""),
            "Certificate of that listener with its chain, PEM",
        )
        .at_start()
        .without_option()
        .more("Changed files are read again; files that cannot be used leave the former ones in force (`lb_part_missing` of `api_files`)."),
        optional(
            "api_key_file", option!(Daemon.api_key_file = PATH),
            FILE_PATH,
            ("none", "\"/etc/lb/api.key\""),
            "Key of that certificate, PEM",
        )
        .at_start()
        .without_option(),
        optional(
            "api_ca_file", option!(Daemon.api_ca_file = PATH),
            FILE_PATH,
            ("none", "\"/etc/lb/clients.pem\""),
            "Authorities of the clients' certificates, PEM",
        )
        .at_start()
        .without_option(),
        optional(
            "api_crl_file", option!(Daemon.api_crl_file = PATH),
            FILE_PATH,
            ("no certificate is revoked", "\"/etc/lb/clients.crl\""),
            "Revocation lists of those authorities, PEM",
        )
        .at_start()
        .without_option()
        .more("A revoked certificate is refused in the handshake, and so is one with an authority on its chain that has no list in the file. A list that is out of date stays in force, and is a problem in `lb status`."),
        default(
            "api_admin", field!(Daemon.api_admin = STRINGS),
            texts("list of names of certificates", "NAME", Separated::ByCommas),
            "[]",
            "Clients of `api_address` that may do everything",
        )
        .at_start()
        .without_option()
        .more("A name is a common name, or a DNS name, mail address or URI of the certificate."),
        default(
            "api_operate", field!(Daemon.api_operate = STRINGS),
            texts("list of names of certificates", "NAME", Separated::ByCommas),
            "[]",
            "Clients of `api_address` that may read, drain, disable, enable and weigh backends, report health and flush flows",
        )
        .at_start()
        .without_option(),
        default(
            "api_read", field!(Daemon.api_read = STRINGS),
            texts("list of names of certificates", "NAME", Separated::ByCommas),
            "[]",
            "Clients of `api_address` that may read, as through `socket_read`",
        )
        .at_start()
        .without_option(),
        default(
            "state_dir", field!(Daemon.state_dir = PATH),
            ABSOLUTE,
            "\"/var/lib/lb\"",
            "Directory that keeps the desired state and health results over restarts",
        )
        .at_start(),
        default(
            "metrics", field!(Daemon.metrics = ENDPOINT),
            described("address and port", "ADDR"),
            "\"127.0.0.1:9900\"",
            "Address that serves the web page, /metrics, /healthz and /readyz",
        )
        .at_start(),
        default(
            "metrics_access", field!(Daemon.metrics_access = PREFIX_LIST),
            PREFIXES,
            "[]",
            "Prefixes of the only clients that may connect to metrics; empty: all that reach it",
        )
        .at_start()
        .more("Others get 403. Name `127.0.0.0/8`, too, for clients on this machine."),
        default(
            "metrics_names", field!(Daemon.metrics_names = HOST_NAMES),
            texts("list of host names", "NAME", Separated::ByCommas),
            "[]",
            "Host names under which browsers may open the web page",
        )
        .at_start()
        .more(
            "Addresses, `localhost` and this machine's own name always work. Other names are refused, so that a foreign site \
             cannot give the page a name of its own and read it (DNS rebinding).",
        ),
        default(
            "pin_dir", field!(Daemon.pin_dir = PATH),
            ABSOLUTE,
            "\"/sys/fs/bpf/lb\"",
            "Directory in which programs and maps are pinned",
        )
        .at_start()
        .more("They stay there while no daemon runs. The daemon mounts a BPF file system where there is none."),
        default("on_exit", field!(Daemon.on_exit = word()), one_of::<OnExit>(), "\"detach\"", "What happens to the program when the daemon exits").at_start().more(
            "`detach` takes it off the interfaces; with `keep` it goes on forwarding.",
        ),
        default("log_format", field!(Daemon.log_format = word()), one_of::<LogFormat>(), "\"text\"", "How the daemon writes its log, to stderr").at_start().more(
            "`json`: one object for each line, with `timestamp`, `level`, `message` and further fields. Where stderr is systemd's journal, each \
             line begins with its priority (sd-daemon(3)), which the journal takes off.",
        ),
        default(
            "snat_addresses", field!(Settings.snat_addresses = IPS),
            texts("list of IP addresses, up to 16 of each family", "IP", Separated::ByCommas),
            "[]",
            "Source addresses of mode nat",
        )
        .more(
            "They must be routed to this machine. If the list is empty, each backend gets the source address that the \
             kernel's route to it prefers.",
        ),
        default("snat_ports", field!(Settings.snat_ports = PORTS), described("range of ports", "PORTS"), "\"1024-32767\"", "Source ports of mode nat").more(
            "Keep them clear of `net.ipv4.ip_local_port_range` (32768-60999 unless changed), from which this machine's own \
             connections take theirs.",
        ),
        default(
            "tunnel_sources", field!(Settings.tunnel_sources = PREFIX_LIST),
            PREFIXES,
            "[]",
            "Prefixes, one for each family, that give each flow of modes ipip and gue an outer source address",
        )
        .more(
            "Flows then spread over the receive queues of backends and the paths to them. Route the prefixes to this machine, \
             and allow them on backends (`lb decap --from`). If the list is empty, all outer packets have the one address that \
             the kernel's route to the backend prefers.",
        ),
        default("gue_port", field!(Settings.gue_port = PORT_NUMBER), PORT, "6080", "UDP destination port of mode gue").more(
            "Backends must expect the packets there (`lb decap --gue-port`).",
        ),
        default(
            "decap_from", field!(Settings.decap_from = PREFIX_LIST),
            PREFIXES,
            "[]",
            "Balancers whose tunnels (modes ipip and gue) to addresses of this machine end here",
        )
        .more(
            "The packets in them are balanced, or pass to the kernel: [modes.md](modes.md#tunnels-between-balancers). On a backend \
             without `lb run`, use `lb decap`.",
        ),
        default(
            "transition", field!(Settings.transition = TIME),
            DURATION,
            "\"10m\"",
            "Time in which flows of a removed backend may finish; from 1s",
        ),
    ],
};
