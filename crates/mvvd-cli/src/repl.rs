//! What happens at the prompt: lines come in with editing, history, colours and completion, and run when complete.

use std::borrow::Cow;
use std::cell::RefCell;
use std::env;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mvvd_core::{Error, ErrorKind};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};

use crate::complete::{Offer, offer};
use crate::engine::Engine;
use crate::error::{Failure, tell};
use crate::highlight::highlight;
use crate::lexer::{Piece, Splitter, State};
use crate::output::plain;
use crate::shell::{Flow, Shell};

const PROMPT: &str = "mvvd> ";
const PROMPT_OPEN: &str = "   -> ";
/// Statements that the history keeps.
const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Reads and runs until the user leaves.
pub(crate) fn run(shell: &mut Shell, with_history: bool) -> Result<(), Failure> {
    let mut prompt = Prompt::new(shell, with_history)?;
    if !shell.quiet {
        let version = env!("CARGO_PKG_VERSION");
        shell.target.say(&format!("mvvd {version}, in memory: nothing is saved. \\? lists commands, \\q leaves."))?;
    }
    let mut splitter = Splitter::default();
    loop {
        let line = match prompt.read(&splitter)? {
            Input::Line(line) => line,
            Input::Interrupt => {
                splitter = Splitter::default();
                prompt.entry.clear();
                continue;
            }
            Input::End => return Ok(()),
        };
        let pieces = match bare_word(&line).filter(|_| splitter.is_empty()) {
            Some(command) => vec![Piece::Command { text: command.to_owned(), line: 1 }],
            None => {
                splitter.push(&line);
                splitter.push("\n");
                std::iter::from_fn(|| splitter.next(false)).collect()
            }
        };
        prompt.remember(&line, splitter.is_empty());
        for piece in &pieces {
            match shell.run(piece, None) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Quit) => return Ok(()),
                Ok(Flow::Reset) => {
                    splitter = Splitter::default();
                    prompt.entry.clear();
                }
                // What else stood on the line may depend on what failed.
                Err(Failure::Cancelled) => {
                    tell("cancelled\n");
                    break;
                }
                Err(Failure::ClosedPipe) => return Err(Failure::ClosedPipe),
                Err(Failure::Told | Failure::Error(_)) => break,
            }
        }
        if splitter.is_empty() {
            // Line numbers in errors count from the statement's start.
            splitter = Splitter::default();
        }
    }
}

/// Words that people type to leave or for help, without any mark.
fn bare_word(line: &str) -> Option<&'static str> {
    match line.trim().trim_end_matches(';').to_ascii_lowercase().as_str() {
        "exit" | "quit" => Some("\\q"),
        "help" => Some("\\?"),
        _ => None,
    }
}

enum Input {
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    End,
}

/// The line editor and its history.
struct Prompt {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
    /// Lines of the statement that is open, to be one entry of the history.
    entry: String,
}

impl Prompt {
    fn new(shell: &Shell, with_history: bool) -> Result<Self, Failure> {
        let color = shell.color().stdout;
        let config = Config::builder()
            .max_history_size(HISTORY_ENTRIES_MAX)
            .and_then(|builder| builder.history_ignore_dups(true))
            .map_err(failure)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
            // With results going to a file, the prompt still belongs on the terminal.
            .behavior(if io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm })
            .build();
        let mut editor = Editor::with_config(config).map_err(failure)?;
        editor.set_helper(Some(Assistant {
            engine: Rc::clone(shell.engine()),
            files: FilenameCompleter::new(),
            history: HistoryHinter::new(),
            open: RefCell::default(),
            color,
        }));
        let history = if with_history { history_file() } else { None };
        if let Some(path) = &history {
            // The first session has no history yet, and a broken one must not keep anybody from working.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history, entry: String::new() })
    }

    fn read(&mut self, splitter: &Splitter) -> Result<Input, Failure> {
        if let Some(helper) = self.editor.helper() {
            helper.open.replace((splitter.state().clone(), splitter.open_text().to_owned()));
        }
        let prompt = if splitter.is_empty() { PROMPT } else { PROMPT_OPEN };
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Input::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Input::Interrupt),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(e) => Err(failure(e)),
        }
    }

    /// Adds to the entry of the statement, and when that is `complete`, the entry to the history.
    fn remember(&mut self, line: &str, complete: bool) {
        if !self.entry.is_empty() {
            self.entry.push('\n');
        }
        self.entry.push_str(line);
        if !complete {
            return;
        }
        let entry = std::mem::take(&mut self.entry);
        if entry.trim().is_empty() || !self.editor.add_history_entry(entry).unwrap_or(false) {
            return;
        }
        // Saved at once, for the other prompts and in case of a crash; without a place for it, it lasts until the end.
        if let Some(path) = &self.history
            && self.editor.append_history(path).is_err()
        {
            self.history = None;
        }
    }
}

fn failure(e: ReadlineError) -> Failure {
    let reason = match &e {
        ReadlineError::Io(e) => plain(e),
        other => other.to_string(),
    };
    Error::new(ErrorKind::Unavailable, format!("cannot read from the terminal: {reason}")).into()
}

/// `$XDG_STATE_HOME/mvvd/history` or `~/.local/state/mvvd/history`, in a folder that exists.
fn history_file() -> Option<PathBuf> {
    let set = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = match set {
        Some(base) => base,
        None if cfg!(windows) => PathBuf::from(env::var_os("LOCALAPPDATA")?),
        None => env::home_dir()?.join(Path::new(".local/state")),
    };
    let folder = base.join("mvvd");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// What the line editor asks while the user types.
struct Assistant {
    engine: Rc<Engine>,
    files: FilenameCompleter,
    history: HistoryHinter,
    /// What the lines before left open, and their text.
    open: RefCell<(State, String)>,
    color: bool,
}

impl Helper for Assistant {}

impl Validator for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Ok(session) = self.engine.session() else { return Ok((pos, Vec::new())) };
        match offer(&self.open.borrow().1, &line[..pos], &session.vocabulary()) {
            Offer::File => self.files.complete(line, pos, context),
            Offer::Words(start, words) => {
                let pair = |word: String| Pair { display: word.clone(), replacement: word };
                Ok((start, words.into_iter().map(pair).collect()))
            }
        }
    }
}

impl Hinter for Assistant {
    type Hint = String;

    /// The rest of the last statement that began like this one: the right arrow takes it.
    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<String> {
        // Without colours a hint could not be told from what was typed.
        let hint = self.color.then(|| self.history.hint(line, pos, context)).flatten()?;
        (!hint.contains('\n')).then_some(hint)
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        let open = self.open.borrow();
        Cow::Owned(highlight(line, &open.0, !open.1.is_empty()))
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m"))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_a_mark() {
        assert_eq!([" Exit;", "quit", "help", "select"].map(bare_word), [Some("\\q"), Some("\\q"), Some("\\?"), None]);
    }
}
