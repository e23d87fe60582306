//! Chromium without a window, told what to do through a pipe: the protocol of its developer tools, a JSON object a message.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Nothing is asked of anybody, and no profile is left behind.
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                     --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars";

/// A browser with one page, in which scripts are off.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What every page that was opened asked for.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// `profile` is an empty folder.
    pub(crate) fn start(profile: &Path) -> Result<Self, String> {
        // It reads commands from 3 and answers on 4.
        let script = format!(
            "exec chromium {FLAGS} --remote-debugging-pipe --user-data-dir=\"$0\" 3<&0 4>&1 >/dev/null 2>\"$0/log\""
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("chromium: {error}"))?;
        let (sender, messages) = channel();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let input = child.stdin.take().expect("piped");
        let mut browser = Self { child, input, messages, session: String::new(), last_id: 0, requests: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach)?;
        browser.session = text(&session["sessionId"])?;
        browser.call("Emulation.setScriptExecutionDisabled", &json!({"value": true}))?;
        browser.call("Network.enable", &json!({}))?;
        browser.call("Page.enable", &json!({}))?;
        Ok(browser)
    }

    /// Opens a file, and comes back when all of it is there.
    pub(crate) fn open(&mut self, file: &Path) -> Result<(), String> {
        let earlier = self.requests.len();
        let url = format!("file://{}", file.display());
        let opened = self.call("Page.navigate", &json!({"url": url}))?;
        if let Some(error) = opened["errorText"].as_str() {
            return Err(format!("{}: {error}", file.display()));
        }
        while self.next()?["method"] != "Page.loadEventFired" {}
        // That for the file itself is no request of the page.
        let own = self.requests[earlier..].iter().position(|request| *request == url);
        let own = own.ok_or_else(|| format!("got no request for {url}: {:?}", &self.requests[earlier..]))?;
        self.requests.remove(earlier + own);
        Ok(())
    }

    /// The width of the window, and whether the system is dark.
    pub(crate) fn look(&mut self, width: u32, is_dark: bool) -> Result<(), String> {
        let metrics = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = json!({"name": "prefers-color-scheme", "value": if is_dark { "dark" } else { "light" }});
        self.call("Emulation.setEmulatedMedia", &json!({"features": [scheme]}))?;
        Ok(())
    }

    /// Width and height of all of the page.
    pub(crate) fn size(&mut self) -> Result<(u32, u32), String> {
        let metrics = self.call("Page.getLayoutMetrics", &json!({}))?;
        let length = |name| metrics["cssContentSize"][name].as_f64().map(|length| length as u32);
        length("width").zip(length("height")).ok_or_else(|| format!("Page.getLayoutMetrics: got {metrics}"))
    }

    /// A PNG of all of the page.
    pub(crate) fn screenshot(&mut self) -> Result<Vec<u8>, String> {
        let (width, height) = self.size()?;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let arguments = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        self.data("Page.captureScreenshot", &arguments)
    }

    /// A PDF as it is printed.
    pub(crate) fn print(&mut self) -> Result<Vec<u8>, String> {
        self.data(
            "Page.printToPDF",
            &json!({"printBackground": false, "preferCSSPageSize": true, "paperWidth": 8.27, "paperHeight": 11.69}),
        )
    }

    /// The page as HTML, as it is after it was opened.
    pub(crate) fn dom(&mut self) -> Result<String, String> {
        let document = self.call("DOM.getDocument", &json!({"depth": 0}))?;
        let html = self.call("DOM.getOuterHTML", &json!({"nodeId": document["root"]["nodeId"]}))?;
        text(&html["outerHTML"])
    }

    fn data(&mut self, method: &str, arguments: &Value) -> Result<Vec<u8>, String> {
        let data = self.call(method, arguments)?;
        BASE64_STANDARD.decode(text(&data["data"])?).map_err(|error| format!("{method}: {error}"))
    }

    fn call(&mut self, method: &str, arguments: &Value) -> Result<Value, String> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": arguments});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let written = self.input.write_all(format!("{message}\0").as_bytes()).and_then(|()| self.input.flush());
        written.map_err(|error| format!("chromium: {error}"))?;
        loop {
            let mut answer = self.next()?;
            if answer["id"] == self.last_id {
                return match answer.get("error") {
                    Some(error) => Err(format!("{method}: {error}")),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// The next message, which is an answer or says that something happened.
    fn next(&mut self) -> Result<Value, String> {
        let message = self.messages.recv_timeout(PATIENCE);
        let message = message.map_err(|_| "chromium ended, or says nothing any more".to_owned())?;
        if message["method"] == "Network.requestWillBeSent" {
            self.requests.push(text(&message["params"]["request"]["url"])?);
        }
        Ok(message)
    }
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("chromium: got {value}, expected a text"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session.clear();
        // It ends its own processes; a browser that does not answer is ended.
        if self.call("Browser.close", &json!({})).is_err() {
            _ = self.child.kill();
        }
        _ = self.child.wait();
    }
}
