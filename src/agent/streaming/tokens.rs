//! Tokens in URLs: who knows one may open one stream, once, for a while.
use super::error::StreamError;
use crate::sys::random;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most tokens that wait for their client; each holds a command line.
const MAX_TOKENS: usize = 1000;
/// Bytes of a token: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

/// What has been promised to clients that have not come yet.
#[derive(Debug)]
pub(super) struct Tokens<T> {
    life: Duration,
    waiting: Mutex<HashMap<[u8; TOKEN_BYTES], (Instant, T)>>,
}

impl<T> Tokens<T> {
    pub(super) fn new(life: Duration) -> Self {
        Self { life, waiting: Mutex::new(HashMap::new()) }
    }

    /// Keeps something for whoever brings the token that is returned.
    pub(super) fn issue(&self, what: T) -> Result<String, StreamError> {
        let mut token = [0; TOKEN_BYTES];
        random::fill(&mut token)?;
        let now = Instant::now();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_TOKENS {
            waiting.retain(|_, (expires, _)| *expires > now);
        }
        if waiting.len() >= MAX_TOKENS {
            return Err(StreamError::TooManyTokens { limit: MAX_TOKENS });
        }
        waiting.insert(token, (now + self.life, what));
        Ok(token.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes what is kept for this token, if it is known and has not expired; it is used up.
    pub(super) fn redeem(&self, token: &str) -> Option<T> {
        let token = parse(token)?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (expires, what) = waiting.remove(&token)?;
        (expires > Instant::now()).then_some(what)
    }
}

fn parse(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    let text = text.as_bytes();
    if text.len() != 2 * TOKEN_BYTES {
        return None;
    }
    let mut token = [0; TOKEN_BYTES];
    for (byte, pair) in token.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [digit(pair[0])?, digit(pair[1])?];
        *byte = high << 4 | low;
    }
    Some(token)
}

/// Lower case only, so that there is one text for a token.
fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_serves_once() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let one = tokens.issue(1).unwrap();
        let two = tokens.issue(2).unwrap();
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
        assert_eq!(tokens.redeem(&one), Some(1));
        assert_eq!(tokens.redeem(&one), None);
        assert_eq!(tokens.redeem(&format!("{}A", &two[1..])), None);
        assert_eq!(tokens.redeem("no token"), None);
        assert_eq!(tokens.redeem(&"é".repeat(32)), None);
    }

    #[test]
    fn a_token_expires() {
        let tokens = Tokens::new(Duration::ZERO);
        let token = tokens.issue(()).unwrap();
        assert_eq!(tokens.redeem(&token), None);
    }

    #[test]
    fn there_is_a_bound_until_some_expire() {
        let tokens = Tokens::new(Duration::from_secs(60));
        let first = tokens.issue(0).unwrap();
        for number in 1..MAX_TOKENS {
            tokens.issue(number).unwrap();
        }
        assert!(matches!(tokens.issue(0), Err(StreamError::TooManyTokens { .. })));
        assert_eq!(tokens.redeem(&first), Some(0));
        tokens.issue(0).unwrap();

        let tokens = Tokens::new(Duration::ZERO);
        for number in 0..2 * MAX_TOKENS {
            tokens.issue(number).unwrap();
        }
    }
}
