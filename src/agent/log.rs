//! The agent's log: lines for people or JSON, and the last failures for `corten agent status`.
use crate::engine::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// So many failures are remembered.
const REMEMBERED: usize = 16;
/// Characters of a remembered message; the log has all of it.
const REMEMBERED_LENGTH: usize = 1000;

static RECENT: Mutex<VecDeque<Failure>> = Mutex::new(VecDeque::new());

/// A warning or an error that was logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub time: Timestamp,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// The message with its fields.
    pub message: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// One JSON object a line: `time`, `level`, `message`, and the event's fields.
    Json,
}

/// Starts to log to standard error; a second call changes nothing.
pub fn start(form: Form, most: Level) {
    let text = (form == Form::Text).then(|| {
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false)
    });
    let json = (form == Form::Json).then_some(Json);
    // Whoever was first has the log.
    let _ = tracing_subscriber::registry().with(Only(most)).with(Remember).with(text).with(json).try_init();
}

/// The last failures, oldest first.
pub fn recent() -> Vec<Failure> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Lets nothing pass that is less important than this.
struct Only(Level);

impl<S: Subscriber> Layer<S> for Only {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // The libraries below us tell every frame at debug; only ours is of use.
        let ours = metadata.target().starts_with("corten");
        metadata.level() <= &(if ours { self.0 } else { self.0.min(Level::WARN) })
    }
}

struct Remember;

impl<S: Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut message = fields.0.remove("message").as_ref().map(shown).unwrap_or_default();
        for (name, value) in &fields.0 {
            message.push_str(&format!(" {name}={}", shown(value)));
        }
        if let Some((end, _)) = message.char_indices().nth(REMEMBERED_LENGTH) {
            message.truncate(end);
        }
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Failure { time: Timestamp::now(), level: level.to_string(), message });
    }
}

struct Json;

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("time".to_owned(), Timestamp::now().to_string().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.append(&mut fields.0);
        let mut bytes = Value::Object(line).to_string().into_bytes();
        bytes.push(b'\n');
        // One write a line; a log that nobody reads is no reason to end.
        let _ = std::io::stderr().lock().write_all(&bytes);
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
