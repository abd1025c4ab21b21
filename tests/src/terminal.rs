//! A terminal for programs that need one: what they show is read as from a screen, and keys are typed.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::wait;

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A pseudo-terminal with a program in its foreground.
pub struct Terminal {
    child: Child,
    main: File,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    modes: [libc::tcflag_t; 4],
}

/// How a program has left its terminal.
#[derive(Debug)]
pub struct Left {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What is on the screen.
    pub text: String,
    /// Whether modes, cursor and screen are those from before it started.
    pub is_restored: bool,
}

impl Terminal {
    /// Starts a command on a terminal of this size, which becomes its controlling terminal.
    ///
    /// # Errors
    /// When there is no terminal, or the command cannot start.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Result<Self> {
        let (mut main, mut other) = (-1, -1);
        let none = std::ptr::null_mut();
        let size = size(rows, columns);
        // SAFETY: the call fills both descriptors and reads the size; no name and no settings are given.
        let opened = unsafe {
            libc::openpty(
                &raw mut main,
                &raw mut other,
                none,
                none.cast(),
                (&raw const size).cast_mut(),
            )
        };
        ensure!(opened == 0, "openpty: {}", io::Error::last_os_error());
        // SAFETY: descriptors that the call has just opened for us.
        let (main, other) = unsafe { (OwnedFd::from_raw_fd(main), OwnedFd::from_raw_fd(other)) };
        command
            .stdin(Stdio::from(other.try_clone()?))
            .stdout(Stdio::from(other.try_clone()?))
            .stderr(Stdio::from(other));
        let control = || {
            // SAFETY: two system calls without pointers; standard input is the terminal by then.
            let done = unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 };
            if done {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        // SAFETY: the closure makes two system calls and neither allocates nor takes a lock.
        unsafe { command.pre_exec(control) };
        let main = File::from(main);
        let modes = modes(&main)?;
        let child = command.spawn()?;
        // The command holds the other end, whose last holder is to be the program.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut from, to) = (main.try_clone()?, Arc::clone(&screen));
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal without programs ends with EIO.
            while let Ok(length @ 1..) = from.read(&mut piece) {
                let mut screen = to.lock().unwrap_or_else(PoisonError::into_inner);
                screen.process(&piece[..length]);
            }
        });
        Ok(Self {
            child,
            main,
            screen,
            reader: Some(reader),
            modes,
        })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        Ok(self.main.write_all(keys.as_bytes())?)
    }

    /// What is on the screen, lines without their trailing blanks.
    pub fn text(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen().contents()
    }

    /// Waits until the screen is as it should be, and returns it.
    ///
    /// # Errors
    /// When it never is; with what it shows instead.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let shown = || {
            let text = self.text();
            Ok(is_so(&text).then_some(text))
        };
        wait::until(what, LIMIT, shown).with_context(|| format!("the screen:\n{}", self.text()))
    }

    /// Waits until this is on the screen.
    ///
    /// # Errors
    /// When it never is.
    pub fn wait_for(&self, words: &str) -> Result<String> {
        self.wait_until(words, |text| text.contains(words))
    }

    /// Another size, which the program hears of.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen_mut().set_size(rows, columns);
        let size = size(rows, columns);
        // SAFETY: the call reads the size, which lives.
        let set = unsafe { libc::ioctl(self.main.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        ensure!(set == 0, "TIOCSWINSZ: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: takes two numbers; the child was not waited for, so that its id is its own.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "kill: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self) -> Result<Left> {
        let ended = wait::until("the program ends", LIMIT, || Ok(self.child.try_wait()?));
        let status = ended.with_context(|| format!("the screen:\n{}", self.text()))?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = screen.screen();
        Ok(Left {
            code: status.code(),
            text: screen.contents(),
            is_restored: modes(&self.main)? == self.modes
                && !screen.alternate_screen()
                && !screen.hide_cursor(),
        })
    }
}

const fn size(rows: u16, columns: u16) -> libc::winsize {
    libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The modes of a terminal: input, output, control and local.
fn modes(terminal: &File) -> Result<[libc::tcflag_t; 4]> {
    let mut modes = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the call fills the modes, which live.
    let read = unsafe { libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()) };
    ensure!(read == 0, "tcgetattr: {}", io::Error::last_os_error());
    // SAFETY: zeros are a valid value, and the call has filled it.
    let modes = unsafe { modes.assume_init() };
    Ok([modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag])
}
