//! `tidemill indicator`: indicators for a person or a script, from the engine's rollups, whether a node runs or not.

use super::{Desk, load};
use crate::commands::{load_node, print_table, report};
use crate::failure::Failure;
use ::warehouse::indicator::figure::Exact;
use ::warehouse::indicator::{Answer, Grain, IndicatorError, Question};
use clap::Subcommand;
use serde::Serialize;
use std::path::Path;

#[derive(Subcommand)]
pub enum IndicatorVerb {
    /// Indicators with their newest period, and whether they can be relied on.
    List,
    /// One indicator at a period, beside what it was before and what it should be.
    Get {
        /// The indicator's code.
        code: String,
        /// The period, or a day in it: `2026-11-28`, `2026-W48`, `2026-11`, `2026-Q4`, `2026`. The newest by default.
        #[arg(long, value_name = "PERIOD")]
        date: Option<String>,
        /// `day`, `week`, `month`, `quarter` or `year`. The indicator's finest by default.
        #[arg(long, value_parser = grain)]
        grain: Option<Grain>,
        /// Of a member only: `dept=north`. May be repeated.
        #[arg(long = "dim", value_name = "NAME=MEMBER", value_parser = member)]
        dims: Vec<(String, String)>,
        /// Also list the members of this dimension, the best first.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// Also the periods before, so many in all.
        #[arg(long, value_name = "N", default_value_t = 0)]
        series: u32,
    },
}

fn grain(text: &str) -> Result<Grain, String> {
    Grain::named(text).ok_or_else(|| "there are: day, week, month, quarter, year".into())
}

fn member(text: &str) -> Result<(String, String), String> {
    let (name, member) = text.split_once('=').ok_or("write NAME=MEMBER")?;
    Ok((name.to_owned(), member.to_owned()))
}

fn failed(error: &IndicatorError) -> Failure {
    Failure::of("answer", error)
}

pub async fn run(dir: &Path, verb: IndicatorVerb, json: bool) -> Result<(), Failure> {
    let node = load_node(dir)?;
    let mut problems = Vec::new();
    let indicators = load(dir, node.engine.is_some(), &mut problems);
    if !problems.is_empty() {
        return Err(report(&problems));
    }
    let desk = Desk::beside(dir, &node, indicators);
    match verb {
        IndicatorVerb::List => list(&desk, json).await,
        IndicatorVerb::Get { code, date, grain, dims, by, series } => {
            let dims = dims.into_iter().map(|(name, member)| (name, Some(member))).collect();
            let question = Question { code, date, grain, dims, by, series, ..Question::default() };
            desk.indicators().answerable(&question.code).map_err(|error| failed(&error))?;
            let service = desk.service().await.map_err(|error| failed(&error))?;
            let answers = service.answer(&[question]).await;
            for answer in answers {
                let answer = answer.map_err(|error| failed(&error))?;
                if json { print_json(&answer)? } else { print(&answer) }
            }
            Ok(())
        }
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::new(1, format!("failed to print: {error}")))?;
    println!("{text}");
    Ok(())
}

async fn list(desk: &Desk, json: bool) -> Result<(), Failure> {
    if desk.indicators().metrics.is_empty() {
        if json {
            println!("[]")
        } else {
            eprintln!("there is no indicator: declare some in indicators/*.yaml")
        }
        return Ok(());
    }
    let service = desk.service().await.map_err(|error| failed(&error))?;
    let all = service.list().await.map_err(|error| failed(&error))?;
    if json {
        return print_json(&all);
    }
    let head = ["code", "name", "unit", "newest", "grains", "dimensions", "state"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for it in all {
        let grains: Vec<&str> = it.grains.iter().map(|it| it.name()).collect();
        rows.push(vec![
            it.indicator.code,
            it.indicator.name,
            it.indicator.unit,
            it.newest.map_or("–".into(), |it| it.to_string()),
            grains.join(","),
            it.dimensions.join(","),
            format!("{:?}", it.indicator.state).to_lowercase(),
        ]);
    }
    print_table(&rows);
    Ok(())
}

fn shown(value: Option<&Exact>) -> String {
    value.map_or("–".to_owned(), |it| it.0.to_string())
}

/// A rate in per cent, to two digits.
fn percent(rate: Option<&Exact>) -> String {
    rate.map_or("–".to_owned(), |it| format!("{:+.2} %", it.0.to_f64() * 100.0))
}

fn print(answer: &Answer) {
    let unit = &answer.indicator.unit;
    let value = if answer.missing {
        "no rows".to_owned()
    } else {
        format!("{} {unit}", shown(answer.value.as_ref()))
    };
    println!("{} ({}) {}: {}", answer.indicator.name, answer.indicator.code, answer.period, value.trim_end());
    for (what, then) in [("before", &answer.mom), ("a year before", &answer.yoy)] {
        println!(
            "  {what} ({}): {}, {}",
            then.period,
            shown(then.value.as_ref()),
            percent(then.rate.as_ref())
        );
    }
    if let Some(target) = &answer.target {
        let light = answer.status.map_or(String::new(), |it| format!(", {it:?}").to_lowercase());
        println!("  target: {}{light}", target.0);
    }
    println!("  as of {}{}", answer.as_of, if answer.stale { ", stale" } else { "" });
    if let Some(members) = &answer.members {
        let mut rows = Vec::new();
        rows.push(
            ["rank", "member", "value", "share", "before", "a year before"].map(str::to_owned).to_vec(),
        );
        rows.extend(members.iter().map(|it| {
            vec![
                it.rank.map_or("–".into(), |rank| rank.to_string()),
                it.member.clone().unwrap_or("NULL".into()),
                shown(it.value.as_ref()),
                percent(it.share.as_ref()).replace('+', ""),
                percent(it.mom.as_ref()),
                percent(it.yoy.as_ref()),
            ]
        }));
        print_table(&rows);
    }
    if !answer.series.is_empty() {
        let mut rows = Vec::new();
        rows.push(["period", "value"].map(str::to_owned).to_vec());
        let points = answer.series.iter();
        rows.extend(points.map(|it| vec![it.period.to_string(), shown(it.value.as_ref())]));
        print_table(&rows);
    }
}
