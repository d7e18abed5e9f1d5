//! Shows the progress of a command with several stages: a spinner on a terminal, plain lines elsewhere.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

pub(crate) struct Stages {
    start: Instant,
    done: Vec<(String, Duration)>,
    terminal: bool,
}

impl Stages {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), done: Vec::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Runs a command. On a terminal, its output is shown only if it fails.
    pub(crate) fn run(&mut self, name: &str, command: Command) -> Result<()> {
        if self.terminal {
            self.stage(name, |spinner| run_captured(command, spinner))
        } else {
            self.run_openly(name, command)
        }
    }

    /// Runs a command and shows its output.
    pub(crate) fn run_openly(&mut self, name: &str, mut command: Command) -> Result<()> {
        output::note(&format!("==> {name}"));
        self.timed(name, || {
            let status = command.status().with_context(|| cannot_run(&command))?;
            if !status.success() {
                bail!("{} ({status})", shown(&command));
            }
            Ok(())
        })
    }

    /// Does work that isn't a command.
    pub(crate) fn doing<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.terminal {
            output::note(&format!("==> {name}"));
        }
        self.stage(name, |_| work())
    }

    /// Prints a line for each stage with its time, and one for all of them.
    pub(crate) fn finish(self, verdict: &str) {
        for (name, time) in &self.done {
            output::note(&format!("{:>8.1} s  {name}", time.as_secs_f64()));
        }
        output::note(&format!("{:>8.1} s  {verdict}", self.start.elapsed().as_secs_f64()));
    }

    fn stage<T>(&mut self, name: &str, work: impl FnOnce(&ProgressBar) -> Result<T>) -> Result<T> {
        let spinner = if self.terminal { spinner(name) } else { ProgressBar::hidden() };
        let result = self.timed(name, || work(&spinner));
        spinner.finish_and_clear();
        if self.terminal
            && let (Ok(_), Some((_, time))) = (&result, self.done.last())
        {
            output::note(&format!("{:>8.1} s  {name}", time.as_secs_f64()));
        }
        result
    }

    fn timed<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let value = work().with_context(|| format!("{name} failed"))?;
        self.done.push((name.to_owned(), start.elapsed()));
        Ok(value)
    }
}

fn spinner(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed:>8}    {prefix} {spinner} {wide_msg:.dim}")
        .expect("the template is well-formed");
    let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(name.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Runs a command, with its last line as the spinner's message. If the command fails, all of its output is printed.
fn run_captured(mut command: Command, spinner: &ProgressBar) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(&command))?;
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take().expect("it is piped"), sender.clone());
    forward(child.stderr.take().expect("it is piped"), sender);
    let mut printed = Vec::new();
    for line in lines {
        spinner.set_message(line.trim().to_owned());
        printed.push(line);
    }
    let status = child.wait()?;
    if !status.success() {
        spinner.suspend(|| output::note(&printed.join("\n")));
        bail!("{} ({status})", shown(&command));
    }
    Ok(())
}

fn forward(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}

fn cannot_run(command: &Command) -> String {
    format!("can't run `{}`", command.get_program().display())
}

fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}
