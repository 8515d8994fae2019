//! Kubernetes' quantities: a decimal number with a binary, decimal or exponent suffix.
use super::pod::Quantity;

/// Units in which a quantity is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths: CPUs.
    Milli,
    /// Ones: bytes.
    One,
}

impl Quantity {
    /// The amount in `unit`, a fraction of it rounded up; `None` if it is malformed, negative, or too large.
    pub fn amount(&self, unit: Unit) -> Option<u64> {
        let text = self.0.as_str();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
        let (factor, divisor) = scale(suffix)?;
        let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
        let factor = factor.checked_mul(if unit == Unit::Milli { 1000 } else { 1 })?;
        u64::try_from(digits.checked_mul(factor)?.div_ceil(divisor)).ok()
    }
}

/// What a suffix multiplies with and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let power = |base: u128, exponent: u32| base.checked_pow(exponent).map(|factor| (factor, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => match suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()? {
            exponent @ 0..=18 => power(10, exponent.unsigned_abs()),
            exponent @ -18..0 => Some((1, 10u128.checked_pow(exponent.unsigned_abs())?)),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let amount = |text: &str, unit| Quantity(text.to_owned()).amount(unit);
        for (text, milli) in
            [("1", 1000), ("500m", 500), ("0.5", 500), (".5", 500), ("1.5", 1500), ("1u", 1), ("2e0", 2000)]
        {
            assert_eq!(amount(text, Unit::Milli), Some(milli), "{text}");
        }
        for (text, bytes) in [
            ("0", 0),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129M", 129_000_000),
            ("123Mi", 128_974_848),
            ("1.5Gi", 1_610_612_736),
            ("1k", 1000),
            ("128974848000m", 128_974_848),
            ("1m", 1),
        ] {
            assert_eq!(amount(text, Unit::One), Some(bytes), "{text}");
        }
        for text in
            ["", ".", "x", "-1", "1.2.3", "1 Mi", "1Mib", "1mi", "1e99", "99999999999999999999Ei", "1e", "+1"]
        {
            assert_eq!(amount(text, Unit::One), None, "{text}");
        }
    }
}
