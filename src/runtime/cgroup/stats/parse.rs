//! Formats of statistics files.
use super::{Pressure, PressureLine};

/// A number; `max` and -1 are no limit.
pub(super) fn number(text: &str) -> Option<u64> {
    match text {
        "max" | "-1" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// `key number` lines; others are skipped.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value.trim())?))
    })
}

/// `0-2,5`; `None` for anything else.
pub(super) fn cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut list = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        list.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    Some(list)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full ..`; `None` for an empty file.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let target = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *target = pressure_line(words);
    }
    (!text.is_empty()).then_some(pressure)
}

fn pressure_line<'a>(words: impl Iterator<Item = &'a str>) -> PressureLine {
    let mut line = PressureLine::default();
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let share = || value.parse().unwrap_or(0.0);
        match key {
            "avg10" => line.avg10 = share(),
            "avg60" => line.avg60 = share(),
            "avg300" => line.avg300 = share(),
            "total" => line.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

/// `hugepages-2048kB` is `2MB` (`hugetlb_cgroup_file_init`, mm/hugetlb_cgroup.c).
pub(super) fn huge_page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    })
}
