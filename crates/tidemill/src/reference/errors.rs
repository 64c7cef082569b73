//! `errors.md`: the closed set of codes in `base::error`, and the exit statuses.

use super::{NOTE, row};
use base::{Code, Retry};

/// What scripts may rely on.
const EXIT_STATUSES: [(u8, &str); 6] = [
    (0, "done"),
    (1, "failed"),
    (2, "wrong usage or configuration; nothing was started or changed"),
    (3, "could not connect: the node, a source or a sink does not answer"),
    (4, "a check or a comparison found differences"),
    (130, "interrupted by Ctrl-C"),
];

pub fn page() -> String {
    let mut out = format!(
        "# Errors\n\n{NOTE}\n\n\
         Every error has one of nine codes. The code decides the exit status of a command and the HTTP status of an \
         answer. The message says what failed and why, outermost first; the hint says what to do.\n\n\
         ```text\nerror: there is no source `shopp`\nhint: there are: shop\n```\n\n\
         | code | exit | HTTP | meaning | again? |\n|---|---|---|---|---|\n"
    );
    for code in Code::ALL {
        let again = match code.retry() {
            Retry::Backoff => "capture and delivery try again by themselves",
            Retry::Never => "not before something was changed",
        };
        let (name, exit, http) =
            (format!("`{}`", code.name()), code.exit_status().to_string(), code.http_status().to_string());
        out.push_str(&row(&[&name, &exit, &http, code.meaning(), again]));
    }
    out.push_str("\n## Exit statuses\n\n| status | meaning |\n|---|---|\n");
    for (status, meaning) in EXIT_STATUSES {
        out.push_str(&row(&[&status.to_string(), meaning]));
    }
    out.push_str(
        "\nA command that asks a running node ends with 2 when the node answers `invalid` or `not_found`: the command \
         named something wrong. `up` ends with 0 after SIGTERM or Ctrl-C, once the batches in flight are done.\n\n\
         ## Over HTTP\n\n\
         An error is a problem of RFC 9457, `application/problem+json`, with two members more: `code`, from the table, \
         and `hint`.\n\n\
         ```json\n{\"type\": \"about:blank\", \"title\": \"Not Found\", \"status\": 404, \"code\": \"not_found\",\n \
         \"detail\": \"there is no flow `x`\", \"hint\": \"see GET /api/v1/flows\"}\n```\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::{Code, EXIT_STATUSES};

    #[test]
    fn every_code_ends_with_a_status_of_the_table() {
        for code in Code::ALL {
            assert!(EXIT_STATUSES.iter().any(|(status, _)| *status == code.exit_status()), "{}", code.name());
        }
    }
}
