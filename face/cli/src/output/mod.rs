//! What is printed: lines, tables, templates, progress.

pub(crate) mod human;
pub(crate) mod listing;
pub(crate) mod natural;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;

use std::io::Write;

/// Prints text as it is. A reader that went away ends the program as SIGPIPE would.
pub(crate) fn text(text: &str) {
    bytes(text.as_bytes());
}

/// Prints a line.
pub(crate) fn line(line: &str) {
    let mut owned = String::with_capacity(line.len() + 1);
    owned.push_str(line);
    owned.push('\n');
    text(&owned);
}

/// Prints bytes.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        crate::terminal::restore();
        std::process::exit(141);
    }
}

/// Prints a line on standard error.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Columns of the terminal, 80 when there is none.
pub(crate) fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdin()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// Asks a question on standard output; yes only for `y` or `yes`.
pub(crate) fn confirm(question: &str) -> bool {
    text(question);
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer).is_err() {
        return false;
    }
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
