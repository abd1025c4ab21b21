//! Programs as checks.

use super::*;
use crate::settings::ExecCheck;

fn script(text: &str) -> ExecChecker {
    ExecChecker::new(&ExecCheck {
        command: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
    })
    .unwrap()
}

fn target() -> SocketAddr {
    "192.0.2.7:81".parse().unwrap()
}

#[tokio::test]
async fn the_exit_code_decides_and_the_output_explains() {
    let cases = [
        ("test $LB_ADDRESS:$LB_PORT = 192.0.2.7:81", ""),
        ("echo fine; echo more; exit 3", "exit status: 3: fine"),
        ("echo out; echo why >&2; exit 1", "exit status: 1: why"),
        ("kill -9 $$", "signal: 9 (SIGKILL): "),
        ("yes", "it printed over 2097152 bytes"),
        // More than the pipe and we take: it must not block.
        (
            "head -c 1000000 /dev/zero; echo bad >&2; exit 1",
            "exit status: 1: bad",
        ),
    ];
    for (text, expected) in cases {
        let reason = match script(text).check(target(), PLENTY).await {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let wanted = if expected.is_empty() {
            String::new()
        } else {
            format!("command failed for {}: {expected}", target())
        };
        assert_eq!(reason, wanted, "{text}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_no_fault_of_the_target() {
    let checker = ExecChecker::new(&ExecCheck {
        command: vec!["/nonexistent/check".to_owned()],
    })
    .unwrap();
    let error = checker.check(target(), PLENTY).await.unwrap_err();
    assert!(
        error.is_local() && error.to_string().contains("/nonexistent/check"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_program_that_hangs_is_given_up() {
    let script = script("sleep 1000");
    let error = settled(script.check(target(), SECOND)).await.unwrap_err();
    assert_eq!(class(&error), "timed out in Request");
}

/// A program of a check must have neither the balancer's privileges nor its environment.
#[tokio::test]
async fn a_program_has_no_capabilities_and_no_environment_of_ours() {
    assert!(std::env::vars().count() > 4, "there is something to hide");
    let text = "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' '; exit 1";
    let error = script(text).check(target(), PLENTY).await.unwrap_err();
    let none = "0000000000000000";
    assert_eq!(
        error.to_string(),
        format!(
            "command failed for {}: exit status: 1: CapInh: {none} CapPrm: {none} CapEff: {none} CapAmb: {none} NoNewPrivs: 1",
            target()
        )
    );
    let text = "tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 | sort | tr '\\n' ' '; exit 1";
    let error = script(text).check(target(), PLENTY).await.unwrap_err();
    let names = "LANG LB_ADDRESS LB_PORT PATH";
    assert!(error.to_string().ends_with(&format!(": {names}")), "{error}");
}

/// Otherwise each time-out leaves a process behind.
#[tokio::test]
async fn children_of_the_program_end_with_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let text = format!(
        "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
        file.display()
    );
    let check = tokio::spawn(async move { script(&text).check(target(), PLENTY).await });
    let pid = loop {
        if let Ok(pid) = fs::read_to_string(&file) {
            break pid;
        }
        assert!(!check.is_finished());
        yield_now().await;
    };
    check.abort();
    assert!(check.await.unwrap_err().is_cancelled());
    let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let started = Instant::now();
    // A zombie has ended too; init may take its time.
    while !state().is_empty() && !state().contains(") Z ") {
        assert!(started.elapsed() < PLENTY, "{}", state());
        yield_now().await;
    }
}
