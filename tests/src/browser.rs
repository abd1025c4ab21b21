//! Debian's Chromium without a window, driven by the DevTools protocol through a pair of pipes.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{netns::Netns, scratch::Scratch, wait};

/// Longest wait for the page to be as a test wants it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. Dropping it kills it.
pub struct Browser {
    child: Child,
    pipes: RefCell<Pipes>,
    session: String,
    _scratch: Scratch,
}

struct Pipes {
    to: File,
    from: BufReader<File>,
    last: u64,
    /// Requests of the page, by their URLs.
    requests: Vec<String>,
    /// Errors and warnings that a person sees in the console.
    complaints: Vec<String>,
}

/// A fifo.
fn fifo(path: PathBuf) -> Result<PathBuf> {
    crate::netns::checked(Command::new("mkfifo").arg(&path))?;
    Ok(path)
}

impl Browser {
    /// Starts it in a namespace, with a window of this size.
    ///
    /// # Errors
    /// When Chromium is not installed or does not come up.
    pub fn start(ns: &Netns, width: u32, height: u32) -> Result<Self> {
        let scratch = Scratch::new()?;
        let (to, from) = (fifo(scratch.join("to"))?, fifo(scratch.join("from"))?);
        let child = ns
            .command("sh")
            .args(["-c", "exec chromium \"$@\" 3<\"$0/to\" 4>\"$0/from\""])
            .arg(scratch.path())
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", scratch.join("profile").display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromium")?;
        let pipes = Pipes {
            to: OpenOptions::new().write(true).open(to)?,
            from: BufReader::new(File::open(from)?),
            last: 0,
            requests: Vec::new(),
            complaints: Vec::new(),
        };
        let mut browser = Self {
            child,
            pipes: RefCell::new(pipes),
            session: String::new(),
            _scratch: scratch,
        };
        let targets = browser.call("Target.getTargets", json!({}))?;
        let target = targets["targetInfos"][0]["targetId"].clone();
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target, "flatten": true }),
        )?;
        browser.session = attached["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        browser.resize(width, height)?;
        Ok(browser)
    }

    /// Gives the window another size.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics).map(drop)
    }

    /// Prefers `dark` or `light` pages.
    ///
    /// # Errors
    /// As [`Browser::resize`].
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// Opens a page.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(&self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({ "url": url }))?;
        ensure!(opened.get("errorText").is_none(), "{url}: {opened}");
        self.wait(&format!(
            "location.href === '{url}' && document.readyState === 'complete'"
        ))
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn value(&self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// The value of an expression in the page that is a text.
    ///
    /// # Errors
    /// As [`Browser::value`], and when it is none.
    pub fn text(&self, expression: &str) -> Result<String> {
        let value = self.value(expression)?;
        Ok(value
            .as_str()
            .with_context(|| format!("{expression} is {value}"))?
            .to_owned())
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Errors
    /// With the page's text, when it does not become true.
    pub fn wait(&self, expression: &str) -> Result<()> {
        let waited = wait::until_true(expression, PATIENCE, || Ok(self.value(expression)? == true));
        waited.with_context(|| {
            format!(
                "the page:\n{}",
                self.text("document.body.innerText").unwrap_or_default()
            )
        })
    }

    /// Presses Enter.
    ///
    /// # Errors
    /// As [`Browser::resize`].
    pub fn press_enter(&self) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13 });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// A picture of what the window shows, PNG.
    ///
    /// # Errors
    /// When the browser makes none, or the file cannot be written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let taken = self.call("Page.captureScreenshot", json!({}))?;
        let encoded = taken["data"].as_str().context("no picture")?;
        let encoded_file = file.with_extension("base64");
        fs::write(&encoded_file, encoded)?;
        let decoded = Command::new("base64").arg("-d").arg(&encoded_file).output()?;
        fs::write(file, decoded.stdout)?;
        Ok(fs::remove_file(encoded_file)?)
    }

    /// The URLs that the pages asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.pipes.borrow().requests.clone()
    }

    /// What the console has to complain about so far: errors, and what the pages' security policy blocked.
    pub fn complaints(&self) -> Vec<String> {
        self.pipes.borrow().complaints.clone()
    }

    fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let mut pipes = self.pipes.borrow_mut();
        pipes.last += 1;
        let id = pipes.last;
        let mut request = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        pipes.to.write_all(format!("{request}\0").as_bytes())?;
        loop {
            let mut message = Vec::new();
            pipes.from.read_until(0, &mut message)?;
            ensure!(message.pop().is_some(), "chromium has ended");
            let message: Value = serde_json::from_slice(&message)?;
            if message["id"] == id {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            pipes.note(&message);
        }
    }
}

impl Pipes {
    /// Keeps what tests want to know of an event.
    fn note(&mut self, event: &Value) {
        let of = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => self
                .requests
                .extend(of["request"]["url"].as_str().map(str::to_owned)),
            "Runtime.exceptionThrown" => self.complaints.push(of.to_string()),
            "Log.entryAdded" => self.complaints.push(of["entry"].to_string()),
            "Runtime.consoleAPICalled" => self.complaints.push(of["args"].to_string()),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends its own processes; killed, it would leave some.
        let closed = self.call("Browser.close", json!({}));
        if closed.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
