//! Writing what was found: tables for people, JSON for programs, a spinner where someone watches.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    render::{self, Piece, Progress, Terminals},
    terminal::{json_safe, one_line},
    verify::Line,
};

/// How often the spinner turns.
const SPIN: Duration = Duration::from_millis(120);

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A sandbox's output as its own.
    Plain,
    /// One line for each thing, with its time and place.
    Listing,
}

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    terminals: Terminals,
    bar: Option<ProgressBar>,
}

impl Output {
    /// For people, or for programs.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            terminals: Terminals {
                stdout: io::stdout().is_terminal(),
                stderr: io::stderr().is_terminal(),
            },
            bar: None,
        }
    }

    /// Whether a program reads us.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Shows a verified line.
    pub(crate) fn line(&self, line: &Line, form: Form) -> anyhow::Result<()> {
        let piece = match (self.json, form) {
            (true, _) => out(render::json(line)),
            (false, Form::Listing) => out(render::listed(line)),
            (false, Form::Plain) => render::plain(line, self.terminals),
        };
        self.put(&piece)
    }

    /// Says something to a person; a program does not need it.
    pub(crate) fn remark(&self, text: &str) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        self.put(&Piece {
            stdout: Vec::new(),
            stderr: render::remark(text),
        })
    }

    /// Shows one value to a program.
    pub(crate) fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value).context("encode answer")?;
        self.put(&out(format!("{}\n", json_safe(&text))))
    }

    /// Shows text of our own to a person.
    pub(crate) fn text(&self, text: &str) -> anyhow::Result<()> {
        self.put(&out(text.to_owned()))
    }

    /// Shows rows to a person.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        self.put(&out(table(header, rows)))
    }

    /// Turns a spinner, or says in its place what is going on.
    pub(crate) fn begin(&mut self, text: &str) {
        if self.json || !self.terminals.stderr {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(SPIN);
            bar
        });
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_message(one_line(text));
    }

    /// Shows how far a sandbox says it is.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        let Some(bar) = &self.bar else { return };
        if let Some((done, total)) = progress.steps {
            if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.set_length(total);
            bar.set_position(done);
        }
        if !progress.message.is_empty() || progress.steps.is_some() {
            bar.set_message(progress.message.clone());
        }
    }

    /// Takes the spinner away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn put(&self, piece: &Piece) -> anyhow::Result<()> {
        if piece.stdout.is_empty() && piece.stderr.is_empty() {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&piece.stdout)?;
            stdout.flush()?;
            io::stderr().lock().write_all(&piece.stderr)
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        .context("write output")
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.end();
    }
}

fn out(text: String) -> Piece {
    Piece {
        stdout: text.into_bytes(),
        stderr: Vec::new(),
    }
}

/// Columns, without lines around them, as `docker` and `kubectl` print them.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_and_no_strangers_controls() {
        let rows = vec![
            vec!["edge-1".to_owned(), "ready".to_owned()],
            vec!["e".to_owned(), "\x1b[2J\nx".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "STATE"], &rows),
            "NAME     STATE\nedge-1   ready\ne        ^[[2J x\n"
        );
    }

    #[test]
    fn an_empty_table_still_names_its_columns() {
        assert_eq!(table(&["NAME", "STATE"], &[]), "NAME   STATE\n");
    }
}
