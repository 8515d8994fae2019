//! Amounts of CPU and memory as ECS writes them.

/// CPU units of one vCPU.
pub const UNITS: u64 = 1024;
/// Bytes of a MiB.
pub const MIB: i64 = 1024 * 1024;

/// CPU units of `256`, `1 vCPU` or `.5 vcpu`; `None` if it is neither.
pub fn cpu(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    match lower.strip_suffix("vcpu") {
        Some(number) => scaled(number.trim_end(), UNITS),
        None => whole(&lower),
    }
}

/// MiB of `512`, `1GB` or `0.5 GB`; `None` if it is neither.
pub fn memory(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    match lower.strip_suffix("gb") {
        Some(number) => scaled(number.trim_end(), 1024),
        None => whole(&lower),
    }
}

fn whole(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// A decimal number times `scale`, which must come out whole.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (before, after) = text.split_once('.').unwrap_or((text, ""));
    if (before.is_empty() && after.is_empty()) || after.len() > 6 {
        return None;
    }
    let whole_part = if before.is_empty() { 0 } else { whole(before)? };
    let mut amount = whole_part.checked_mul(scale)?;
    if !after.is_empty() {
        let tenths = 10u64.pow(u32::try_from(after.len()).ok()?);
        let product = whole(after)?.checked_mul(scale)?;
        if product % tenths != 0 {
            return None;
        }
        amount = amount.checked_add(product / tenths)?;
    }
    Some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_virtual_cpus() {
        for (text, units) in
            [("256", 256), ("1 vCPU", 1024), (".5 vcpu", 512), ("0.25vCPU", 256), ("1.5 vCPU", 1536)]
        {
            assert_eq!(cpu(text), Some(units), "{text}");
        }
        for text in ["", "-1", "1.5", "vCPU", ". vcpu", "0.3333333 vcpu", "1 cpu", "99999999999999999999"] {
            assert_eq!(cpu(text), None, "{text}");
        }
    }

    #[test]
    fn mebibytes_and_gigabytes() {
        for (text, mib) in [("512", 512), ("1GB", 1024), ("0.5 GB", 512), ("2 gb", 2048)] {
            assert_eq!(memory(text), Some(mib), "{text}");
        }
        for text in ["", "1MB", "GB", "1.0001 GB", "1..5 GB"] {
            assert_eq!(memory(text), None, "{text}");
        }
    }
}
