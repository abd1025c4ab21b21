//! Which programs come from which Debian packages.

use crate::bundle::{Bundle, Program};

/// Python finds its own modules, and modules of packages, relative to its path.
pub(super) const PYTHON: Program = Program {
    name: "python3",
    file: "usr/bin/python3",
    env: &[("PYTHONHOME", "@/usr"), ("PYTHONNOUSERSITE", "1")],
    args: &[],
    has_own_root: false,
};

/// Programs for the root lanes and the benchmarks.
pub(super) const TESTS: Bundle = Bundle {
    name: "tests",
    packages: &[
        "iproute2",
        "ethtool",
        "nftables",
        "bpftool",
        "wrk",
        "socat",
        "dnsmasq-base",
        "nginx",
        "prometheus",
        "python3-grpcio",
    ],
    programs: &[
        Program::new("ip", "bin/ip"),
        Program::new("tc", "sbin/tc"),
        Program::new("ethtool", "sbin/ethtool"),
        Program::new("nft", "usr/sbin/nft"),
        Program::new("bpftool", "usr/sbin/bpftool"),
        Program::new("wrk", "usr/bin/wrk"),
        Program::new("socat", "usr/bin/socat"),
        Program::new("dnsmasq", "usr/sbin/dnsmasq"),
        Program::new("nginx", "usr/sbin/nginx"),
        Program::new("prometheus", "usr/bin/prometheus"),
        Program::new("promtool", "usr/bin/promtool"),
        PYTHON,
    ],
};

/// The browser of the tests of the web page: 170 MB of packages. Without these arguments it looks for its maker's servers, and keeps
/// more processes.
pub(super) const BROWSER: Bundle = Bundle {
    name: "browser",
    packages: &["chromium-headless-shell", "fonts-dejavu-core"],
    programs: &[Program {
        name: "chromium",
        file: "usr/lib/chromium/chromium-headless-shell",
        env: &[],
        args: &[
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ],
        has_own_root: true,
    }],
};

/// What makes, builds and runs clients of the API in Go, and Go for the benchmark of health checks: 150 MB of packages. Java finds its files
/// beside its own; generated clients import the validator.
pub(super) const GO: Bundle = Bundle {
    name: "go",
    packages: &[
        "golang-go",
        "golang-gopkg-validator.v2-dev",
        "default-jre-headless",
    ],
    programs: &[
        Program {
            name: "go",
            file: "usr/lib/go/bin/go",
            env: &[("GOROOT", "@/usr/lib/go")],
            args: &[],
            has_own_root: false,
        },
        Program {
            has_own_root: true,
            ..Program::new("java", "usr/lib/jvm/default-java/bin/java")
        },
    ],
};

/// Proxies that benchmarks compare with. nginx forwards TCP by a module of its own, which must be of its version.
pub(super) const PROXIES: Bundle = Bundle {
    name: "proxies",
    packages: &["haproxy", "nginx", "libnginx-mod-stream"],
    programs: &[
        Program::new("haproxy", "usr/sbin/haproxy"),
        Program {
            name: "nginx-stream",
            file: "usr/sbin/nginx",
            env: &[],
            args: &["-g", "load_module @/usr/lib/nginx/modules/ngx_stream_module.so;"],
            has_own_root: false,
        },
    ],
};

/// Load tools that ours is compared with. Only its benchmark needs them, beside those of the tests.
pub(super) const LOAD_TOOLS: Bundle = Bundle {
    name: "load-tools",
    packages: &["nghttp2-client"],
    programs: &[Program::new("h2load", "usr/bin/h2load")],
};

/// Packages for virtual machines.
pub(super) const VM: Bundle = Bundle {
    name: "vm",
    packages: &["qemu-system-x86", "busybox-static"],
    programs: &[
        Program {
            name: "qemu-system-x86_64",
            file: "usr/bin/qemu-system-x86_64",
            env: &[("QEMU_MODULE_DIR", "@/usr/lib/x86_64-linux-gnu/qemu")],
            // Firmware; it would look beside the loader that starts it.
            args: &["-L", "@/usr/share/qemu", "-L", "@/usr/share/seabios"],
            has_own_root: false,
        },
        Program::new("busybox", "bin/busybox"),
    ],
};

/// The tools of RPM, for packages.
pub(super) const RPM: Bundle = Bundle {
    name: "rpm",
    packages: &["rpm"],
    programs: &[
        rpm_program("rpmbuild", "usr/bin/rpmbuild"),
        rpm_program("rpm", "usr/bin/rpm"),
    ],
};

/// It finds its macros relative to its directory.
const fn rpm_program(name: &'static str, file: &'static str) -> Program {
    Program {
        name,
        file,
        env: &[("RPM_CONFIGDIR", "@/usr/lib/rpm")],
        args: &[],
        has_own_root: false,
    }
}

/// A C compiler for 64-bit ARM, and an emulator of its programs. Not in `PATH`: its linker has the name of this machine's.
pub(super) const CROSS: Bundle = Bundle {
    name: "cross",
    packages: &[
        "gcc-aarch64-linux-gnu",
        "libc6-dev-arm64-cross",
        "qemu-user-static",
    ],
    programs: &[
        Program {
            name: CROSS_COMPILER,
            file: "usr/bin/aarch64-linux-gnu-gcc",
            // Where it finds the files that it calls; those are dynamic programs, so it calls their scripts.
            env: &[("GCC_EXEC_PREFIX", "@/usr/lib/gcc-cross/")],
            args: &["-B@/start/"],
            has_own_root: false,
        },
        Program::new("cc1", "usr/lib/gcc-cross/aarch64-linux-gnu/*/cc1"),
        Program::new("collect2", "usr/lib/gcc-cross/aarch64-linux-gnu/*/collect2"),
        Program::new("as", "usr/bin/aarch64-linux-gnu-as"),
        Program::new("ld", "usr/bin/aarch64-linux-gnu-ld"),
        Program::new(CROSS_ARCHIVER, "usr/bin/aarch64-linux-gnu-ar"),
        Program::new(EMULATORS[0], "usr/bin/qemu-aarch64-static"),
    ],
};
pub(super) const CROSS_COMPILER: &str = "aarch64-linux-gnu-gcc";
pub(super) const CROSS_ARCHIVER: &str = "aarch64-linux-gnu-ar";
pub(super) const EMULATORS: [&str; 2] = ["qemu-aarch64-static", "qemu-aarch64"];

/// Shells whose completions are tested; they find their functions and modules by paths of their own, and scripts call `expr`.
pub(super) const SHELLS: Bundle = Bundle {
    name: "shells",
    packages: &["zsh", "fish", "ncurses-base", "coreutils"],
    programs: &[shell("zsh", "bin/zsh"), shell("fish", "usr/bin/fish")],
};

const fn shell(name: &'static str, file: &'static str) -> Program {
    Program {
        has_own_root: true,
        ..Program::new(name, file)
    }
}

/// What the demo calls, which are a few of the programs for the tests: who only looks at it fetches no more.
pub(super) const DEMO: Bundle = Bundle {
    name: "demo",
    packages: &["iproute2", "ethtool", "nginx"],
    programs: &[
        Program::new("ip", "bin/ip"),
        Program::new("ethtool", "sbin/ethtool"),
        Program::new("nginx", "usr/sbin/nginx"),
    ],
};

pub(super) const ALL: [&Bundle; 9] = [
    &TESTS,
    &BROWSER,
    &SHELLS,
    &GO,
    &PROXIES,
    &LOAD_TOOLS,
    &VM,
    &RPM,
    &DEMO,
];
