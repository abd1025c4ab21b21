use std::{ffi::CStr, ptr, sync::Barrier, thread};

use super::*;

const TCP: &CStr = c"kind = \"tcp\"\ninterval = \"10ms\"\nfast_interval = \"10ms\"";

fn made(settings: &CStr) -> LbMonitor {
    let mut monitor = 0;
    // SAFETY: a text, a number and no room for errors.
    let code = unsafe { lb_monitor_new(settings.as_ptr(), &mut monitor, ptr::null_mut(), 0) };
    assert_eq!(code, LbCode::Ok);
    monitor
}

fn added(monitor: LbMonitor, address: &CStr) -> Result<u32, LbCode> {
    let mut target = u32::MAX;
    // SAFETY: a text and a number.
    let code = unsafe { lb_monitor_add(monitor, address.as_ptr(), &mut target) };
    if code == LbCode::Ok { Ok(target) } else { Err(code) }
}

#[test]
fn settings_that_are_wrong_are_refused_with_every_reason_and_its_place() {
    for (settings, words) in [
        (c"", "kind"),
        (c"kind = \"none\"", "no check is configured"),
        (c"kind = \"tpc\"", "settings:1:8: error:"),
        (c"kind = \"tcp\"\nfast_interval = \"5s\"", "settings:2:17: error:"),
        (c"kind = \"tcp\"\nrise = 0\nfall = 0", "settings:3:8: error:"),
        (c"kind = \"http\"\nexpect_body = \"(\"", "unclosed group"),
        (c"kind = \"tcp\"\nservice = 1", "service"),
        (c"kind =", "settings:1:7: error:"),
    ] {
        let mut monitor = 7;
        let mut error = [0_u8; 512];
        let room = error.as_mut_ptr().cast();
        // SAFETY: a text, a number and an array.
        let code = unsafe { lb_monitor_new(settings.as_ptr(), &mut monitor, room, error.len()) };
        let text = CStr::from_bytes_until_nul(&error).unwrap().to_str().unwrap();
        assert_eq!((code, monitor), (LbCode::BadSettings, 7), "{settings:?}");
        assert!(text.contains(words), "{settings:?}: {text}");
    }
}

#[test]
fn arguments_that_make_no_sense_give_codes() {
    let monitor = made(TCP);
    let target = added(monitor, c"127.0.0.1:1").unwrap();
    for address in [
        c"",
        c"127.0.0.1",
        c"127.0.0.1:0",
        c"0.0.0.0:80",
        c"a.example:80",
        c"[::1:80",
    ] {
        assert_eq!(added(monitor, address), Err(LbCode::BadAddress), "{address:?}");
    }
    let mut number = 0;
    let mut status = [const { std::mem::MaybeUninit::<LbStatus>::uninit() }; 1];
    let status = status[0].as_mut_ptr();
    let not_utf8 = c"\xff".as_ptr();
    let null = ptr::null();
    let nowhere = ptr::null_mut();
    // SAFETY: each pointer is null or valid for the call.
    unsafe {
        assert_eq!(lb_monitor_new(null, &mut number, nowhere, 0), LbCode::NullPointer);
        assert_eq!(lb_monitor_new(not_utf8, &mut number, nowhere, 0), LbCode::NotUtf8);
        assert_eq!(
            lb_monitor_new(TCP.as_ptr(), ptr::null_mut(), nowhere, 0),
            LbCode::NullPointer
        );
        assert_eq!(
            lb_monitor_add(monitor, null, ptr::null_mut()),
            LbCode::NullPointer
        );
        assert_eq!(
            lb_monitor_stats(monitor, target, ptr::null_mut()),
            LbCode::NullPointer
        );
        assert_eq!(lb_monitor_stats(monitor, target + 1, status), LbCode::NoTarget);
        assert_eq!(lb_monitor_status(monitor, ptr::null_mut(), 1), -1);
        assert_eq!(lb_monitor_status(monitor, ptr::null_mut(), 0), 1);
        assert_eq!(lb_monitor_last_error(monitor, target, nowhere, 1), -1);
        assert_eq!(lb_monitor_last_error(monitor, target, nowhere, 0), 0);
        assert_eq!(lb_monitor_last_error(monitor, 99, nowhere, 0), -6);
    }
    assert_eq!(lb_monitor_is_healthy(monitor, target + 1), -6);
    assert_eq!(lb_monitor_remove(monitor, target + 1), LbCode::NoTarget);

    assert_eq!(lb_monitor_free(monitor), LbCode::Ok);
    for gone in [monitor, 0, u64::MAX] {
        assert_eq!(lb_monitor_free(gone), LbCode::NoMonitor);
        assert_eq!(lb_monitor_start(gone), LbCode::NoMonitor);
        assert_eq!(lb_monitor_stop(gone), LbCode::NoMonitor);
        assert_eq!(lb_monitor_remove(gone, target), LbCode::NoMonitor);
        assert_eq!(lb_monitor_is_healthy(gone, target), -5);
        assert_eq!(added(gone, c"127.0.0.1:1"), Err(LbCode::NoMonitor));
    }
}

#[test]
fn a_target_keeps_its_number_and_no_other_gets_it() {
    let monitor = made(c"kind = \"tcp\"\nport = 9");
    let first = added(monitor, c"127.0.0.1:0").unwrap();
    assert_eq!(added(monitor, c"127.0.0.1:0"), Ok(first));
    let second = added(monitor, c"[::1]:80").unwrap();
    assert_eq!(lb_monitor_remove(monitor, second), LbCode::Ok);
    assert_eq!(lb_monitor_remove(monitor, second), LbCode::NoTarget);
    assert_ne!(added(monitor, c"[::1]:80").unwrap(), second);
    assert_eq!(lb_monitor_free(monitor), LbCode::Ok);
}

#[test]
fn a_monitor_may_be_freed_while_other_threads_use_it() {
    const THREADS: usize = 4;
    for _ in 0..20 {
        let monitor = made(TCP);
        let target = added(monitor, c"127.0.0.1:1").unwrap();
        assert_eq!(lb_monitor_start(monitor), LbCode::Ok);
        let begin = Barrier::new(THREADS + 1);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    begin.wait();
                    while lb_monitor_is_healthy(monitor, target) >= 0 {
                        let _ = added(monitor, c"127.0.0.1:2");
                        let _ = lb_monitor_stop(monitor);
                        let _ = lb_monitor_start(monitor);
                    }
                    assert_eq!(lb_monitor_is_healthy(monitor, target), -5);
                });
            }
            begin.wait();
            assert_eq!(lb_monitor_free(monitor), LbCode::Ok);
        });
    }
}
