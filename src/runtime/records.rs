//! The log records of the container's side.
//!
//! The process that becomes init has a copy of the runtime's log. What that copy keeps, to be written when the
//! call is over, would end with the process; so its records cross to the runtime, over the channel that its
//! failure takes too.
use std::fmt::Write;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::protocol::{Channel, ToParent};

/// The text of a record: `message: name=value name=value`.
pub fn text(event: &Event<'_>) -> String {
    let mut text = Text::default();
    event.record(&mut text);
    text.message + &text.fields
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let separator = if self.fields.is_empty() { ": " } else { " " };
            write!(self.fields, "{separator}{}={value:?}", field.name())
        };
    }
}

/// Sends the records of this process over `channel`, as long as the guard lives; no finer ones than the
/// runtime's log takes.
#[must_use]
pub(super) fn forward(channel: &Arc<Channel>) -> DefaultGuard {
    let threshold = LevelFilter::current();
    tracing::subscriber::set_default(Forward { channel: Arc::clone(channel), threshold })
}

struct Forward {
    channel: Arc<Channel>,
    threshold: LevelFilter,
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.threshold
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.threshold)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Spans are not shown; the number must not be zero.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR | Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        // Whoever would read it may have ended, and its end is no reason to fail.
        let _ = self.channel.send(&ToParent::Log { level: level.into(), message: text(event) }, None);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    #[test]
    fn records_cross_the_channel() {
        let (ours, theirs) = socket::pair().unwrap();
        let (ours, theirs) = (Channel::new(ours), Arc::new(Channel::new(theirs)));
        let guard = tracing::subscriber::set_default(Forward {
            channel: Arc::clone(&theirs),
            threshold: LevelFilter::INFO,
        });
        tracing::debug!("too fine");
        tracing::warn!(key = 7, "told");
        drop((guard, theirs));
        let told = ToParent::Log { level: "warn".into(), message: "told: key=7".into() };
        assert_eq!(ours.receive::<ToParent>().unwrap().unwrap().0, told);
        assert!(ours.receive::<ToParent>().unwrap().is_none());
    }
}
