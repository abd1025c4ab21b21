//! The terminal: full screen, keys, signals, and the looks at the daemon.

use std::{
    io, thread,
    time::{Duration, Instant, SystemTime},
};

use hyper::Method;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};

use super::{
    keys::Key,
    look::look,
    model::{Change, Command, Model},
    view,
};
use crate::{
    api::{rates::Sample, requests::Changed, types::Status},
    cli::{
        client::Client,
        error::{CliError, Exit},
    },
    config::change::Request,
    state::words::Word as _,
};

/// Keys that wait to be handled; more wait in the terminal.
const KEYS: usize = 64;

/// Shows the screen until a key, a signal or the end of the terminal ends it.
///
/// # Errors
/// When the terminal fails, or the daemon answers something else than its status.
pub(super) async fn run(
    client: Client,
    interval: Duration,
    first: Sample,
    has_colours: bool,
) -> Result<(), CliError> {
    let mut ends = Ends::new().map_err(|error| failed(&error))?;
    let mut model = Model::new(first);
    let mut screen = Screen::open()?;
    let mut keys = keys()?;
    let mut looks = looks(client.clone(), interval);
    let (done, mut changes) = mpsc::channel(1);
    loop {
        screen.draw(&mut model, has_colours)?;
        tokio::select! {
            event = keys.recv() => match event {
                // The terminal is closed.
                None => return Ok(()),
                Some(Event::Key(key)) => match Key::of(key).and_then(|key| model.key(key)) {
                    None => {}
                    Some(Command::Quit) => return Ok(()),
                    Some(Command::Change(change)) => {
                        let (client, done) = (client.clone(), done.clone());
                        tokio::spawn(async move { done.send(changed(&client, &change).await).await });
                    }
                },
                // Drawn anew, in its new size.
                Some(Event::Resize(..) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => {}
            },
            answer = looks.recv() => match answer {
                Some(Ok((status, at))) => model.answered(status, at),
                Some(Err(error)) if error.exit == Exit::Unreachable => model.left(SystemTime::now()),
                Some(Err(error)) => return Err(error),
                None => return Err(CliError::new(Exit::Failed, "looking at the daemon has ended")),
            },
            Some(message) = changes.recv() => model.message = Some(message),
            () = ends.any() => return Ok(()),
        }
    }
}

fn failed(error: &io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("terminal: {error}"))
}

/// The terminal in full screen. Dropping it restores the terminal; so does a panic, before its message is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, CliError> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have got half way.
                let _ = ratatui::try_restore();
                Err(failed(&error))
            }
        }
    }

    fn draw(&mut self, model: &mut Model, has_colours: bool) -> Result<(), CliError> {
        let drawn = self.0.draw(|frame| view::draw(frame, model, has_colours));
        drawn.map(drop).map_err(|error| failed(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Signals that end the program, and would otherwise leave the terminal as it is.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Reads keys in a thread of its own, since reading blocks; it ends with the process.
fn keys() -> Result<mpsc::Receiver<Event>, CliError> {
    let (sender, receiver) = mpsc::channel(KEYS);
    let read = move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    };
    let started = thread::Builder::new().name("keys".to_owned()).spawn(read);
    started.map_err(|error| failed(&error))?;
    Ok(receiver)
}

/// Looks at the daemon every interval, one request at a time: one that takes longer delays the next.
fn looks(client: Client, interval: Duration) -> mpsc::Receiver<Result<(Status, Instant), CliError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and the first look was made.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let answer = look(&client, interval).await;
            if sender
                .send(answer.map(|status| (status, Instant::now())))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// Makes a change, and tells how it went.
async fn changed(client: &Client, change: &Change) -> String {
    let Change {
        service,
        backend,
        admin,
    } = change;
    let path = format!("/v1/services/{service}/backends/{backend}");
    let request = Request::one("admin", admin.word());
    let answer = client
        .change::<Changed>(Method::PATCH, &path, Some(&request))
        .await;
    match answer {
        Ok(Changed { warnings, .. }) => {
            let words = std::iter::once(format!("{service}/{backend}: {}", admin.word()));
            words.chain(warnings).collect::<Vec<_>>().join("; ")
        }
        Err(error) => format!("error: {}", error.message),
    }
}
