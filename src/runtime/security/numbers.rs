//! Lists of numbers as the kernel and config.json write them: `0-3,7`.

/// Calls `add` with each number of a list; what is no list, or is refused by `add`, is told by a reason.
pub fn each(list: &str, mut add: impl FnMut(usize) -> bool) -> Result<(), &'static str> {
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| digits).ok_or("is no list such as 0-3,7")
        };
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return Err("has a range that ends before it begins");
        }
        // The first number out of bounds ends it, however long the range is.
        if !(first..=last).all(&mut add) {
            return Err("has a number beyond what the kernel knows");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &str) -> Result<Vec<usize>, &'static str> {
        let mut all = Vec::new();
        each(list, |number| {
            all.push(number);
            number < 64
        })
        .map(|()| all)
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(numbers("0-3,7"), Ok(vec![0, 1, 2, 3, 7]));
        assert_eq!(numbers("5"), Ok(vec![5]));
        for bad in [
            "",
            ",",
            "1-",
            "-1",
            "a",
            "3-1",
            "0x1",
            "1,,2",
            "+1",
            "0-18446744073709551615",
            "99999999999999999999",
        ] {
            assert!(numbers(bad).is_err(), "{bad:?}");
        }
    }
}
