//! The user's terminal: raw mode that is left on every way out, and its size.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode of standard input while it lives.
pub(crate) struct Raw(());

impl Raw {
    /// Switches to raw mode; `None` when standard input is not a terminal.
    pub(crate) fn enter() -> Option<Self> {
        let saved = tcgetattr(stdin()).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
        Some(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves raw mode when it was entered.
pub(crate) fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &saved);
    }
}

pub(crate) fn stdin_is_terminal() -> bool {
    stdin().is_terminal()
}

pub(crate) fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

/// Rows and columns of the terminal at standard output, zeros when there is none.
pub(crate) fn size() -> [u32; 2] {
    match tcgetwinsize(stdout()) {
        Ok(size) => [u32::from(size.ws_row), u32::from(size.ws_col)],
        Err(_) => [0, 0],
    }
}
