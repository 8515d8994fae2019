//! `corten ps`
use super::Context;
use crate::engine::names::SHORT_LENGTH;
use crate::engine::record::{Record, Status};
use crate::engine::task::Port;
use crate::engine::timestamp::Timestamp;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// List containers
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// How to print them
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

/// How `ps` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// A JSON array
    Json,
}

/// Runs `corten ps`.
pub fn run(args: &PsArgs, context: &Context) -> anyhow::Result<u8> {
    let mut rows: Vec<Row> = Vec::new();
    for record in context.engine.records()? {
        let status = context.engine.status(&record.id()?)?;
        // One that removed itself since its record was read is gone.
        let gone = !context.engine.directory(&record.id()?).exists();
        if !gone && (args.all || status.is_live()) {
            // Of no interest to who asks for ids alone.
            let attachment = if args.quiet { None } else { context.engine.attachment(&record)? };
            let ports = attachment.map(|attachment| attachment.ports).unwrap_or_default();
            rows.push(Row { record, status, ports });
        }
    }
    let mut out = std::io::stdout().lock();
    let now = Timestamp::now();
    if args.quiet {
        for Row { record, .. } in &rows {
            writeln!(out, "{}", if args.no_trunc { record.id.as_str() } else { short(&record.id) })?;
        }
    } else if args.format == Format::Json {
        let list: Vec<serde_json::Value> = rows.iter().map(object).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
    } else {
        let header =
            ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"].map(str::to_owned);
        let mut table = vec![header.to_vec()];
        table.extend(rows.iter().map(|row| line(row, now, args.no_trunc)));
        if rows.iter().any(|row| row.record.task.is_some()) {
            add_tasks(&mut table, &rows, context, args.no_trunc)?;
        }
        write_table(&mut out, &table)?;
    }
    Ok(0)
}

/// What is printed of a container.
struct Row {
    record: Record,
    status: Status,
    ports: Vec<Port>,
}

fn object(row: &Row) -> serde_json::Value {
    let Row { record, status, ports } = row;
    let code = match status {
        Status::Exited(ended) | Status::Created(Some(ended)) => Some(ended.code),
        _ => None,
    };
    json!({
        "Id": record.id,
        "Name": record.name,
        "Image": record.image,
        "ImageID": record.image_id,
        "Command": record.command.args,
        "Created": record.created,
        "State": status.word(),
        "Pid": status.run().map_or(0, |run| run.pid),
        "ExitCode": code,
        "Labels": record.options.labels,
        "Task": record.task,
        "Ports": describe_ports(ports),
    })
}

fn short(id: &str) -> &str {
    id.get(..SHORT_LENGTH).unwrap_or(id)
}

fn line(row: &Row, now: Timestamp, whole: bool) -> Vec<String> {
    let Row { record, status, ports } = row;
    // What an image or a caller wrote is shown without what a terminal would obey.
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let command = clean(&record.command.args.join(" "));
    let command = if whole || command.chars().count() <= 20 {
        command
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    let id = if whole { record.id.as_str() } else { short(&record.id) };
    vec![
        id.to_owned(),
        clean(&record.image),
        format!("\"{command}\""),
        format!("{} ago", age(now.since(record.created))),
        describe(status, now),
        describe_ports(ports),
        record.name.clone(),
    ]
}

/// The column that tells which task a container belongs to, by name; only where one does.
fn add_tasks(table: &mut [Vec<String>], rows: &[Row], context: &Context, whole: bool) -> anyhow::Result<()> {
    let tasks = context.engine.tasks()?;
    let name = |id: &str| match tasks.iter().find(|task| task.id == id) {
        Some(task) => task.spec.name.clone(),
        // It was removed meanwhile.
        None => if whole { id } else { short(id) }.to_owned(),
    };
    let cells = rows.iter().map(|row| row.record.task.as_deref().map_or_else(String::new, name));
    for (line, cell) in table.iter_mut().zip(std::iter::once("TASK".to_owned()).chain(cells)) {
        line.push(cell);
    }
    Ok(())
}

/// As docker: `0.0.0.0:8080->80/tcp`.
fn describe_ports(ports: &[Port]) -> String {
    let one = |port: &Port| {
        let address = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let host = SocketAddr::new(address, port.host_port);
        format!("{host}->{}/{}", port.container_port, port.protocol.name())
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn describe(status: &Status, now: Timestamp) -> String {
    match status {
        Status::Running(run) => format!("Up {}", age(now.since(run.started))),
        Status::Unmonitored(run) => format!("Up {} (unmonitored)", age(now.since(run.started))),
        Status::Exited(ended) => {
            let oom = if ended.oom_killed { ", OOM" } else { "" };
            format!("Exited ({}{oom}) {} ago", ended.code, age(now.since(ended.finished)))
        }
        Status::Lost(_) => "Exited (unknown: its monitor was killed)".to_owned(),
        Status::Created(_) => "Created".to_owned(),
        Status::Starting => "Starting".to_owned(),
    }
}

/// `5 seconds`, `1 minute`, `3 days`.
fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn write_table(out: &mut impl Write, table: &[Vec<String>]) -> std::io::Result<()> {
    let mut widths = vec![0; table.first().map_or(0, Vec::len)];
    for line in table {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in table {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(line) {
            text.push_str(&format!("{cell:<width$}   "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(of(0), "0 seconds");
        assert_eq!(of(61), "1 minute");
        assert_eq!(of(7200), "2 hours");
        assert_eq!(of(259_200), "3 days");
    }

    #[test]
    fn columns_line_up() {
        let line = |text: &str| ["a", text, "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let mut out = Vec::new();
        write_table(&mut out, &[line("b"), line("longer")]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().next().unwrap().find('c'), text.lines().nth(1).unwrap().find('c'));
    }
}
