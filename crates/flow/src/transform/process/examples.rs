//! What each step answers, as examples: a test runs them, and the reference page is made of them.

/// One row and what becomes of it.
pub struct Example {
    /// The step as it stands in a flow's file.
    pub step: &'static str,
    /// Columns of the row besides `id`: name, type, and the value as text; `None` is NULL.
    pub row: &'static [(&'static str, &'static str, Option<&'static str>)],
    pub answer: Answer,
}

/// What becomes of a row.
pub enum Answer {
    /// Columns that the step made or changed: name, SQL type, and the value as our JSON prints it.
    Row(&'static [Cell]),
    /// The rows it became, in the same way.
    Rows(&'static [&'static [Cell]]),
    /// Set aside with this reason.
    Parked(&'static str),
    /// Left out.
    LeftOut,
}

/// Name, SQL type, value.
pub type Cell = (&'static str, &'static str, &'static str);

/// The file that the examples of `lookup` read, `lookups/status.csv`.
pub const LOOKUP_FILE: &str =
    "code,label,class\n200,OK,2\n404,Not Found,4\n500,\"Internal, Server Error\",5\n";

/// A step and its examples.
pub struct Section {
    pub step: &'static str,
    pub examples: &'static [Example],
}

const LINE: &str = r#"203.0.113.7 - anna [26/Nov/2026:18:30:05 +0100] "GET /a?b=1 HTTP/1.1" 200 2326"#;
const COMBINED: &str =
    r#"2001:db8::1 - - [26/Nov/2026:18:30:05 +0100] "POST /cart HTTP/2.0" 404 - "-" "curl/8.5.0""#;

macro_rules! agent {
    ($text:literal, $cells:expr $(,)?) => {
        Example {
            step: "user_agent: {column: agent}",
            row: &[("agent", "text", Some($text))],
            answer: Answer::Row($cells),
        }
    };
}

pub const SECTIONS: [Section; 8] = [
    Section {
        step: "grok",
        examples: &[
            Example {
                step: r#"grok: {column: line, match: ["%{IP:client} %{WORD:verb} %{NOTSPACE:path} %{INT:bytes:int}"]}"#,
                row: &[("line", "text", Some("198.51.100.3 GET /index.html 15824"))],
                answer: Answer::Row(&[
                    ("client", "longtext", r#""198.51.100.3""#),
                    ("verb", "longtext", r#""GET""#),
                    ("path", "longtext", r#""/index.html""#),
                    ("bytes", "bigint", "15824"),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["%{COMMONAPACHELOG}"]}"#,
                row: &[("line", "text", Some(LINE))],
                answer: Answer::Row(&[
                    ("clientip", "longtext", r#""203.0.113.7""#),
                    ("ident", "longtext", "null"),
                    ("auth", "longtext", r#""anna""#),
                    ("timestamp", "longtext", r#""26/Nov/2026:18:30:05 +0100""#),
                    ("verb", "longtext", r#""GET""#),
                    ("request", "longtext", r#""/a?b=1""#),
                    ("httpversion", "longtext", r#""1.1""#),
                    ("rawrequest", "longtext", "null"),
                    ("response", "bigint", "200"),
                    ("bytes", "bigint", "2326"),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["%{COMBINEDAPACHELOG}"]}"#,
                row: &[("line", "text", Some(COMBINED))],
                answer: Answer::Row(&[
                    ("clientip", "longtext", r#""2001:db8::1""#),
                    ("ident", "longtext", "null"),
                    ("auth", "longtext", "null"),
                    ("timestamp", "longtext", r#""26/Nov/2026:18:30:05 +0100""#),
                    ("verb", "longtext", r#""POST""#),
                    ("request", "longtext", r#""/cart""#),
                    ("httpversion", "longtext", r#""2.0""#),
                    ("rawrequest", "longtext", "null"),
                    ("response", "bigint", "404"),
                    ("bytes", "bigint", "null"),
                    ("referrer", "longtext", "null"),
                    ("agent", "longtext", r#""curl/8.5.0""#),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["^%{TIMESTAMP_ISO8601:at} %{LOGLEVEL:level} %{GREEDYDATA:message}", "^%{GREEDYDATA:message}"]}"#,
                row: &[("line", "text", Some("no time at all"))],
                answer: Answer::Row(&[
                    ("at", "longtext", "null"),
                    ("level", "longtext", "null"),
                    ("message", "longtext", r#""no time at all""#),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["order %{ORDER:no} took %{NUMBER:seconds:decimal(6,3)} s"], define: {ORDER: "[A-Z]{2}[0-9]+"}}"#,
                row: &[("line", "text", Some("order AB1209 took 0.25 s"))],
                answer: Answer::Row(&[
                    ("no", "longtext", r#""AB1209""#),
                    ("seconds", "decimal(6,3)", r#""0.250""#),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["%{QS:said} %{UUID:id_text} %{URI:link} %{PATH:file}"]}"#,
                row: &[(
                    "line",
                    "text",
                    Some(
                        r#""a \"b\"" 123e4567-e89b-42d3-a456-426614174000 https://u@example.com:8080/p?q=1#x /var/log/a.log"#,
                    ),
                )],
                answer: Answer::Row(&[
                    ("said", "longtext", r#""\"a \\\"b\\\"\"""#),
                    ("id_text", "longtext", r#""123e4567-e89b-42d3-a456-426614174000""#),
                    ("link", "longtext", r#""https://u@example.com:8080/p?q=1#x""#),
                    ("file", "longtext", r#""/var/log/a.log""#),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["%{SYSLOGBASE} %{GREEDYDATA:message}"]}"#,
                row: &[("line", "text", Some("Nov  6 18:30:05 web-1 sshd[211]: session opened"))],
                answer: Answer::Row(&[
                    ("timestamp", "longtext", r#""Nov  6 18:30:05""#),
                    ("logsource", "longtext", r#""web-1""#),
                    ("program", "longtext", r#""sshd""#),
                    ("pid", "bigint", "211"),
                    ("message", "longtext", r#""session opened""#),
                ]),
            },
            Example {
                step: r#"grok: {column: line, match: ["^%{IP:client} "]}"#,
                row: &[("line", "text", Some("garbage"))],
                answer: Answer::Parked(r#"grok: "garbage" matches no pattern"#),
            },
            Example {
                step: r#"grok: {column: line, match: ["^%{IP:client} "], on_error: null}"#,
                row: &[("line", "text", Some("garbage"))],
                answer: Answer::Row(&[("client", "longtext", "null")]),
            },
            Example {
                step: r#"grok: {column: line, match: ["^%{IP:client} "], on_error: skip}"#,
                row: &[("line", "text", Some("garbage"))],
                answer: Answer::LeftOut,
            },
            Example {
                step: r#"grok: {column: line, match: ["%{DATA:n:int};"]}"#,
                row: &[("line", "text", Some("99999999999999999999;"))],
                answer: Answer::Parked(r#"grok: `n`: "99999999999999999999" is not an integer of 64 bits"#),
            },
            Example {
                step: r#"grok: {column: line, match: ["^%{IP:client} "]}"#,
                row: &[("line", "text", None)],
                answer: Answer::Row(&[("client", "longtext", "null")]),
            },
        ],
    },
    Section {
        step: "dissect",
        examples: &[
            Example {
                step: r#"dissect: {column: line, pattern: "%{host} [%{level}] %{took:int}ms %{message}"}"#,
                row: &[("line", "text", Some("web-1 [WARN] 31ms slow: [cache] missed"))],
                answer: Answer::Row(&[
                    ("host", "longtext", r#""web-1""#),
                    ("level", "longtext", r#""WARN""#),
                    ("took", "bigint", "31"),
                    ("message", "longtext", r#""slow: [cache] missed""#),
                ]),
            },
            Example {
                step: r#"dissect: {column: line, pattern: "%{a->} %{} %{c:bool}"}"#,
                row: &[("line", "text", Some("one     two true"))],
                answer: Answer::Row(&[("a", "longtext", r#""one""#), ("c", "tinyint(1)", "1")]),
            },
            Example {
                step: r#"dissect: {column: line, pattern: "<%{priority:int}>%{rest}"}"#,
                row: &[("line", "text", Some("34 no brackets"))],
                answer: Answer::Parked(r#"dissect: "34 no brackets" lacks "<""#),
            },
            Example {
                step: r#"dissect: {column: line, pattern: "%{a}|%{b}|"}"#,
                row: &[("line", "text", Some("1|2|3"))],
                answer: Answer::Parked(r#"dissect: "3" stands behind the pattern's end"#),
            },
        ],
    },
    Section {
        step: "date",
        examples: &[
            Example {
                step: r#"date: {column: at, formats: ["dd/MMM/yyyy:HH:mm:ss Z"]}"#,
                row: &[("at", "text", Some("26/Nov/2026:18:30:05 +0100"))],
                answer: Answer::Row(&[("at", "timestamp(3)", r#""2026-11-26T17:30:05.000Z""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: [ISO8601, UNIX], into: seen}"#,
                row: &[("at", "text", Some("2026-11-26T18:30:05.125+08:00"))],
                answer: Answer::Row(&[("seen", "timestamp(3)", r#""2026-11-26T10:30:05.125Z""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: [ISO8601, UNIX], into: seen, type: datetime}"#,
                row: &[("at", "text", Some("1767323045.9"))],
                answer: Answer::Row(&[("seen", "datetime", r#""2026-01-02 03:04:05""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: [UNIX_MS], into: seen}"#,
                row: &[("at", "int", Some("1767323045120"))],
                answer: Answer::Row(&[("seen", "timestamp(3)", r#""2026-01-02T03:04:05.120Z""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: ["yyyy-MM-dd HH:mm:ss,SSS"], timezone: Asia/Shanghai}"#,
                row: &[("at", "text", Some("2026-01-02 03:04:05,120"))],
                answer: Answer::Row(&[("at", "timestamp(3)", r#""2026-01-01T19:04:05.120Z""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: ["yyyy-MM-dd HH:mm"], timezone: Europe/Vienna, type: timestamp}"#,
                row: &[("at", "text", Some("2026-03-29 02:30"))],
                answer: Answer::Row(&[("at", "timestamp", r#""2026-03-29T01:30:00Z""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: ["EEE, d MMMM yyyy h:mm a z", "dd.MM.yy"], type: datetime}"#,
                row: &[("at", "text", Some("Thu, 6 November 2026 12:05 am UTC"))],
                answer: Answer::Row(&[("at", "datetime", r#""2026-11-06 00:05:00""#)]),
            },
            Example {
                step: r#"date: {column: at, formats: [ISO8601]}"#,
                row: &[("at", "text", Some("2026-02-30"))],
                answer: Answer::Parked(r#"date: "2026-02-30" has none of the formats"#),
            },
        ],
    },
    Section {
        step: "json",
        examples: &[
            Example {
                step: r#"json: {column: doc, columns: {user_id: {path: "$.user.id", type: int}, tag: {path: "$.tags[0]"}, user: {path: "$.user", type: json}, none: {path: "$.x"}}}"#,
                row: &[(
                    "doc",
                    "text",
                    Some(r#"{"user": {"id": 7, "name": "Ana"}, "tags": ["new", "vip"]}"#),
                )],
                answer: Answer::Row(&[
                    ("none", "longtext", "null"),
                    ("tag", "longtext", r#""new""#),
                    ("user", "json", r#"{"id":7,"name":"Ana"}"#),
                    ("user_id", "bigint", "7"),
                ]),
            },
            Example {
                step: r#"json: {column: doc, columns: {price: {path: "$.price", type: "decimal(10,2)"}, at: {path: "$.at", type: datetime}}}"#,
                row: &[("doc", "json", Some(r#"{"price": 12.5, "at": "2026-01-02T03:04:05Z"}"#))],
                answer: Answer::Row(&[
                    ("at", "datetime", r#""2026-01-02 03:04:05""#),
                    ("price", "decimal(10,2)", r#""12.50""#),
                ]),
            },
            Example {
                step: r#"json: {column: doc, columns: {a: {path: "$.a", type: int}}}"#,
                row: &[("doc", "text", Some(r#"{"a": "x"}"#))],
                answer: Answer::Parked(r#"json: "x" is not an integer of 64 bits"#),
            },
            Example {
                step: r#"json: {column: doc, columns: {a: {path: "$.a"}}}"#,
                row: &[("doc", "text", Some(r#"{"a": "#))],
                answer: Answer::Parked(r#"json: "{\"a\": " is not JSON"#),
            },
        ],
    },
    Section {
        step: "lookup",
        examples: &[
            Example {
                step: r#"lookup: {column: status, file: lookups/status.csv, key: code, columns: {label: text, class: int}}"#,
                row: &[("status", "int", Some("500"))],
                answer: Answer::Row(&[
                    ("class", "bigint", "5"),
                    ("label", "longtext", r#""Internal, Server Error""#),
                ]),
            },
            Example {
                step: r#"lookup: {column: status, file: lookups/status.csv, key: code, columns: {label: "varchar(30)"}, default: {label: unknown}}"#,
                row: &[("status", "text", Some("299"))],
                answer: Answer::Row(&[("label", "varchar(30)", r#""unknown""#)]),
            },
            Example {
                step: r#"lookup: {column: status, file: lookups/status.csv, key: code, columns: {label: text}}"#,
                row: &[("status", "text", None)],
                answer: Answer::Row(&[("label", "longtext", "null")]),
            },
        ],
    },
    Section {
        step: "split",
        examples: &[
            Example {
                step: r#"split: {column: tags, separator: ","}"#,
                row: &[("tags", "text", Some("new,vip"))],
                answer: Answer::Rows(&[
                    &[("tags", "longtext", r#""new""#), ("#", "bigint", "0")],
                    &[("tags", "longtext", r#""vip""#), ("#", "bigint", "1")],
                ]),
            },
            Example {
                step: r#"split: {column: items, type: json, index: position}"#,
                row: &[("items", "json", Some(r#"[{"sku": "a"}, {"sku": "b"}]"#))],
                answer: Answer::Rows(&[
                    &[("items", "json", r#"{"sku":"a"}"#), ("position", "bigint", "0")],
                    &[("items", "json", r#"{"sku":"b"}"#), ("position", "bigint", "1")],
                ]),
            },
            Example {
                step: r#"split: {column: tags, separator: ","}"#,
                row: &[("tags", "text", Some(""))],
                answer: Answer::Rows(&[]),
            },
            Example {
                step: r#"split: {column: ids, type: int}"#,
                row: &[("ids", "text", Some("[1, \"x\"]"))],
                answer: Answer::Parked(r#"split: "x" is not an integer of 64 bits"#),
            },
        ],
    },
    Section {
        step: "geo_point",
        examples: &[
            Example {
                step: r#"geo_point: {lat: lat, lon: lon, into: place}"#,
                row: &[("lat", "decimal(9,6)", Some("48.2")), ("lon", "double", Some("16.37"))],
                answer: Answer::Row(&[("place", "json", r#"{"lat": 48.2, "lon": 16.37}"#)]),
            },
            Example {
                step: r#"geo_point: {lat: lat, lon: lon, into: place}"#,
                row: &[("lat", "double", Some("48.2")), ("lon", "double", None)],
                answer: Answer::Row(&[("place", "json", "null")]),
            },
            Example {
                step: r#"geo_point: {lat: lat, lon: lon, into: place}"#,
                row: &[("lat", "double", Some("91")), ("lon", "double", Some("0"))],
                answer: Answer::Parked(r#"geo_point: "91" is no latitude"#),
            },
        ],
    },
    Section {
        step: "user_agent",
        examples: &[
            agent!(
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87",
                &[
                    ("ua_browser", "varchar(100)", r#""Edge""#),
                    ("ua_version", "varchar(100)", r#""126.0.2592.87""#),
                    ("ua_os", "varchar(100)", r#""Windows""#),
                    ("ua_device", "varchar(100)", r#""desktop""#),
                ],
            ),
            agent!(
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                &[
                    ("ua_browser", "varchar(100)", r#""Safari""#),
                    ("ua_version", "varchar(100)", r#""17.5""#),
                    ("ua_os", "varchar(100)", r#""iOS""#),
                    ("ua_device", "varchar(100)", r#""phone""#),
                ],
            ),
            agent!(
                "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                &[
                    ("ua_browser", "varchar(100)", r#""Chrome""#),
                    ("ua_version", "varchar(100)", r#""126.0.0.0""#),
                    ("ua_os", "varchar(100)", r#""Android""#),
                    ("ua_device", "varchar(100)", r#""tablet""#),
                ],
            ),
            agent!(
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                &[
                    ("ua_browser", "varchar(100)", r#""Googlebot""#),
                    ("ua_version", "varchar(100)", r#""2.1""#),
                    ("ua_os", "varchar(100)", r#""Other""#),
                    ("ua_device", "varchar(100)", r#""bot""#),
                ],
            ),
            agent!(
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                &[
                    ("ua_browser", "varchar(100)", r#""Firefox""#),
                    ("ua_version", "varchar(100)", r#""128.0""#),
                    ("ua_os", "varchar(100)", r#""Linux""#),
                    ("ua_device", "varchar(100)", r#""desktop""#),
                ],
            ),
            agent!(
                "something new",
                &[
                    ("ua_browser", "varchar(100)", r#""Other""#),
                    ("ua_version", "varchar(100)", "null"),
                    ("ua_os", "varchar(100)", r#""Other""#),
                    ("ua_device", "varchar(100)", r#""other""#),
                ],
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlowConfig, TransformStep};
    use crate::transform::process::typed::Typed;
    use crate::transform::{TablePlan, Transform};
    use base::{Column, Op, RowBuf, Table, TableName, Value};
    use std::path::Path;
    use std::sync::Arc;

    /// A plan over `id` and the example's columns, and its row.
    fn planned(example: &Example, folder: &Path) -> (TablePlan, RowBuf) {
        let mut step: TransformStep = serde_saphyr::from_str(example.step).expect(example.step);
        if let TransformStep::Lookup(step) = &mut step {
            step.file = step.file.take().map(|file| folder.join(file));
        }
        let flow = FlowConfig { transform: vec![step], ..FlowConfig::probe("x") };
        let mut id = Typed::Int.column("id");
        id.nullable = false;
        let typed = |ty: &str| Typed::parse(ty).unwrap();
        let columns = example.row.iter().map(|(name, ty, _)| typed(ty).column(name));
        let table = Table {
            id: 1,
            version: 1,
            name: TableName::new("web", "log"),
            columns: std::iter::once(id).chain(columns).collect(),
            key: vec![0],
            unique_keys: vec![],
        };
        let values = example.row.iter().map(|(_, ty, text)| match text {
            Some(text) if *ty == "json" => Value::Json((*text).to_owned()),
            Some(text) => typed(ty).read(text).unwrap(),
            None => Value::Null,
        });
        let values: Vec<Value> = std::iter::once(Value::Int(1)).chain(values).collect();
        let plan = Transform::compile(&flow).unwrap().plan(&Arc::new(table)).unwrap();
        (plan, RowBuf::from_values(values.iter().map(Value::as_ref)))
    }

    /// What the step made or changed.
    fn made(row: &[Value], columns: &[Column], example: &Example, before: &[Value]) -> Vec<[String; 3]> {
        let cells = columns.iter().zip(row).enumerate().skip(1);
        let changed = cells.filter(|(at, (_, value))| *at > example.row.len() || before[*at] != **value);
        changed
            .map(|(_, (column, value))| {
                let mut text = Vec::new();
                base::json::put_value(&mut text, value.as_ref(), column);
                [column.name.clone(), column.sql_type.clone(), String::from_utf8(text).unwrap()]
            })
            .collect()
    }

    #[test]
    fn every_example_is_what_the_step_answers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lookups")).unwrap();
        std::fs::write(folder.path().join("lookups/status.csv"), LOOKUP_FILE).unwrap();
        let owned = |cells: &[Cell]| -> Vec<[String; 3]> {
            cells.iter().map(|(a, b, c)| [a, b, c].map(|text| (*text).to_owned())).collect()
        };
        for section in &SECTIONS {
            for example in section.examples {
                assert!(example.step.starts_with(&format!("{}: ", section.step)), "{}", example.step);
                let (plan, row) = planned(example, folder.path());
                let before = row.view().values().unwrap();
                let shown = |row: &[Value]| made(row, &plan.table().columns, example, &before);
                let result = if plan.splits() {
                    plan.apply_split(None, Some(row.view()), Op::Insert).map(|rows| {
                        rows.into_iter().map(|row| shown(&row.after.unwrap())).collect::<Vec<_>>()
                    })
                } else {
                    plan.apply(row.view()).map(|row| row.iter().map(|row| shown(row)).collect())
                };
                let wanted = match &example.answer {
                    Answer::Row(cells) => Ok(vec![owned(cells)]),
                    Answer::Rows(rows) => Ok(rows.iter().map(|cells| owned(cells)).collect()),
                    Answer::Parked(reason) => Err((*reason).to_owned()),
                    Answer::LeftOut => Ok(vec![]),
                };
                assert_eq!(result.map_err(|error| error.0), wanted, "{}", example.step);
            }
        }
    }
}
