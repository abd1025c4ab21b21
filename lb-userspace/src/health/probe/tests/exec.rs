//! Programs as checks.

use super::*;
use crate::health::settings::ExecCheck;

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
    let error = script("sleep 1000").check(target(), SECOND).await.unwrap_err();
    assert_eq!(class(&error), "timed out in Request");
}

/// Otherwise each time-out leaves a process behind.
#[tokio::test]
async fn what_the_program_started_ends_with_the_check() {
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
