//! CRI's numbers of signals, which are not the kernel's.
use super::api;
use super::error::{Result, invalid};
use crate::engine::options::{Signal, parse};

/// Other names of signals, which the engine does not know.
const SYNONYMS: [(&str, &str); 3] = [("SIGCLD", "SIGCHLD"), ("SIGIOT", "SIGABRT"), ("SIGPOLL", "SIGIO")];

/// The stop signal of a container; `None` if the image is to say.
pub fn from_api(number: i32) -> Result<Option<Signal>> {
    match api::Signal::try_from(number) {
        Ok(api::Signal::RuntimeDefault) => Ok(None),
        Ok(signal) => known(signal).map(Some),
        Err(_) => invalid("stop_signal", number.to_string(), "there is no such signal"),
    }
}

fn known(signal: api::Signal) -> Result<Signal> {
    let name = signal.as_str_name().trim_start_matches("SIGNAL_");
    let name = SYNONYMS.iter().find(|(other, _)| *other == name).map_or(name, |(_, name)| name);
    Ok(parse::signal("stop_signal", &name.replace("PLUS", "+").replace("MINUS", "-"))?)
}

/// CRI's number of a signal.
pub fn to_api(signal: Signal) -> api::Signal {
    // The synonyms come before what they stand for, or after it; either is right.
    (1..=api::Signal::Sigrtmax as i32)
        .filter_map(|number| api::Signal::try_from(number).ok())
        .find(|candidate| known(*candidate).is_ok_and(|known| known == signal))
        .unwrap_or(api::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_known_and_comes_back() {
        for number in 1..=65 {
            let signal = from_api(number).unwrap().unwrap();
            assert_eq!(from_api(to_api(signal) as i32).unwrap(), Some(signal), "{number}");
        }
        assert_eq!(from_api(0).unwrap(), None);
        assert_eq!(from_api(api::Signal::Sigterm as i32).unwrap(), Some(Signal(15)));
        assert_eq!(from_api(api::Signal::Sigrtminplus1 as i32).unwrap(), Some(Signal(35)));
        assert_eq!(from_api(api::Signal::Sigrtmax as i32).unwrap(), Some(Signal(64)));
        from_api(66).unwrap_err();
        from_api(-1).unwrap_err();
    }
}
