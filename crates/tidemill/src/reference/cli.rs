//! `cli.md`: every command and argument, as the parser knows them.

use super::{NOTE, row};
use crate::Cli;
use clap::CommandFactory;
use std::fmt::Write;

pub fn page() -> String {
    let mut out = format!("# Command line\n\n{NOTE}\n\n");
    out.push_str("Messages go to standard error and results to standard output. [errors.md](errors.md) lists the exit ");
    out.push_str(
        "statuses. Colours and bars appear only on a terminal. `TIDEMILL_LOG` sets what `up` logs: `warn`, ",
    );
    out.push_str("`debug`, `flow=debug`; `info` by default.\n");
    let mut root = Cli::command();
    root.build();
    put_command(&mut out, &root, "tidemill");
    out
}

fn put_command(out: &mut String, command: &clap::Command, path: &str) {
    let _ = writeln!(out, "\n## `{path}`\n");
    if let Some(about) = command.get_about() {
        let _ = writeln!(out, "{about}\n");
    }
    let top = !path.contains(' ');
    let arguments: Vec<_> = command
        .get_arguments()
        .filter(|a| {
            !a.is_hide_set() && (top || !a.is_global_set()) && a.get_id() != "help" && a.get_id() != "version"
        })
        .collect();
    if !arguments.is_empty() {
        out.push_str("| argument | what |\n|---|---|\n");
        for argument in arguments {
            let name = match (argument.get_long(), argument.get_short()) {
                (Some(long), Some(short)) => format!("-{short}, --{long}"),
                (Some(long), None) => format!("--{long}"),
                _ => argument.get_id().to_string().to_uppercase(),
            };
            let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            if let Some(variable) = argument.get_env() {
                let _ = write!(help, " (or `{}`)", variable.to_string_lossy());
            }
            if let [default] = argument.get_default_values()
                && argument.get_action().takes_values()
            {
                let _ = write!(help, " (default `{}`)", default.to_string_lossy());
            }
            out.push_str(&row(&[&format!("`{name}`"), &help]));
        }
    }
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        put_command(out, inner, &format!("{path} {}", inner.get_name()));
    }
}
