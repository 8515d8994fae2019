//! What a task's monitor and its clients say to each other on `<state>/tasks/<id>/control.sock`: one JSON value in
//! each packet of a SOCK_SEQPACKET socket.
//!
//! ```text
//! client                                   monitor
//!   start, reopen_log, hold, forget, stop ->
//!                                         <-  done, or failed and why
//!   exec + descriptors                    ->
//!                                         <-  executed pid (+ the terminal's master), or failed and why
//!   kill_exec                             ->
//!                                         <-  exited code, and the end
//!   subscribe                             ->
//!                                         <-  done, then events until one of the two goes away
//! ```
//!
//! A connection has one request under way at a time, but for `kill_exec`. A request that is larger than
//! [`MAX_INLINE`] has its large part in a file in memory, whose descriptor is the first that goes with it. A subscriber
//! that does not read is dropped, and reads the records again.
use super::verbs::TaskEvent;
use crate::engine::attach::{kind_number, kind_of};
use crate::engine::error::{EngineError, Failure};
use crate::engine::record::Ended;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The socket's name in the task's directory.
pub const SOCKET: &str = "control.sock";
/// No packet is longer.
pub const MAX_PACKET: usize = 32 * 1024;
/// A request for a process that is longer as JSON goes through a file.
pub const MAX_INLINE: usize = 16 * 1024;
/// What may be in such a file: the kernel's own limit of arguments, written as JSON.
pub const MAX_FILE: u64 = 8 * 1024 * 1024;
/// A chain of errors is cut to this.
const MAX_CHAIN: usize = 4 * 1024;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Start a container of the task.
    Start {
        /// Its id.
        container: String,
    },
    /// Run a process in a container.
    Exec(ExecHead),
    /// Kill the process that this connection asked for.
    KillExec,
    /// Open a container's log again.
    ReopenLog {
        /// Its id.
        container: String,
    },
    /// Do not start a container again when it ends, until it is asked for.
    Hold {
        /// Its id.
        container: String,
    },
    /// A container is being removed: hold it, and forget it.
    Forget {
        /// Its id.
        container: String,
    },
    /// Stop all containers and the task.
    Stop {
        /// Milliseconds between the stop signal and SIGKILL; what each container asks for if absent.
        grace: Option<u64>,
    },
    /// Tell what happens from now on.
    Subscribe,
}

/// A process for a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecHead {
    /// The container's id.
    pub container: String,
    /// What is to run; absent if it is in a file.
    pub request: Option<ExecBody>,
    /// Its standard streams.
    pub stdio: ExecStreams,
}

/// What is to run in a container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ExecBody {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Further variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Its working directory, if not the container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its user, if not the container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Where the standard streams of a process come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStreams {
    /// Which of the three go with the request, in this order; /dev/null is in place of the others.
    Given([bool; 3]),
    /// A new terminal.
    Terminal,
}

impl ExecStreams {
    /// How many descriptors go with the request for them.
    pub fn count(self) -> usize {
        match self {
            Self::Given(which) => which.iter().filter(|given| **given).count(),
            Self::Terminal => 0,
        }
    }
}

/// What the monitor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Told),
    /// The process runs; its terminal's master goes with this.
    Executed {
        /// Its process id on the host.
        pid: i32,
    },
    /// It ended.
    Exited {
        /// Its exit code, or 128 + the signal.
        code: u8,
    },
    /// Something happened.
    Event(TaskEvent),
}

/// A [`Failure`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    kind: u8,
    exit_code: u8,
    chain: String,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        let mut chain = failure.chain;
        let cut = (0..=MAX_CHAIN).rev().find(|at| chain.is_char_boundary(*at));
        if chain.len() > MAX_CHAIN {
            chain.truncate(cut.unwrap_or(0));
        }
        Self { kind: kind_number(failure.kind), exit_code: failure.exit_code, chain }
    }
}

impl From<Told> for Failure {
    fn from(told: Told) -> Self {
        Self { kind: kind_of(told.kind), exit_code: told.exit_code, chain: told.chain }
    }
}

/// What a worker says to its monitor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Told),
    /// A container runs: its pidfd, log and attach socket go with this, and then its streams as far as there are
    /// some: standard input, output, error; or the terminal's master.
    Started(Box<StartedReport>),
    /// A process runs: its pidfd goes with this, and its terminal's master.
    Executed {
        /// Its process id.
        pid: i32,
    },
    /// Nothing of a container runs any more: the monitor is to read the rest of its output and to say how it ended.
    Quiet {
        /// The kernel killed a process of it for want of memory.
        oom_killed: bool,
    },
}

/// What the monitor has to know of a container that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartedReport {
    /// Its init.
    pub pid: i32,
    /// When its program was executed.
    pub time: crate::engine::timestamp::Timestamp,
    /// The container's record, as far as the monitor needs it.
    pub traits: Traits,
    /// Which of the streams go with the report.
    pub streams: [bool; 3],
}

/// What the monitor keeps of a container's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Traits {
    /// It has a terminal.
    pub tty: bool,
    /// Standard input ends with the first client that gave some.
    pub stdin_once: bool,
    /// What to do when it ends.
    pub restart: crate::engine::options::RestartPolicy,
    /// What asks it to stop.
    pub stop_signal: i32,
    /// Seconds between that and SIGKILL.
    pub stop_timeout: Option<u32>,
    /// Where its log is.
    pub log: std::path::PathBuf,
}

/// What the monitor answers to [`Report::Quiet`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub ended: Ended,
}

/// A value as a packet.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, EngineError> {
    let packet =
        serde_json::to_vec(value).map_err(|source| EngineError::Record { path: SOCKET.into(), source })?;
    match packet.len() <= MAX_PACKET {
        true => Ok(packet),
        false => Err(EngineError::Frame { peer: "ourselves", reason: "longer than a packet" }),
    }
}

/// A packet as a value.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(packet).map_err(|source| EngineError::Record { path: SOCKET.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_failure_survives_and_is_cut_between_characters() {
        let failure = Failure { kind: ErrorKind::NotFound, exit_code: 127, chain: "a: b".into() };
        assert_eq!(Failure::from(Told::from(failure.clone())), failure);
        let long = Failure { chain: "ä".repeat(MAX_CHAIN), ..failure };
        let told = Failure::from(Told::from(long));
        assert!(told.chain.len() <= MAX_CHAIN && told.chain.chars().all(|character| character == 'ä'));
    }

    #[test]
    fn requests_read_as_they_are_documented() {
        let id = "0".repeat(64);
        let text = format!(
            r#"{{"exec":{{"container":"{id}","request":{{"args":["true"]}},"stdio":{{"given":[false,true,true]}}}}}}"#
        );
        let Request::Exec(head) = decode(text.as_bytes()).unwrap() else { panic!() };
        assert_eq!((head.container, head.stdio.count()), (id, 2));
        assert!(matches!(decode(b"\"subscribe\"").unwrap(), Request::Subscribe));
        for wrong in [&b""[..], b"{}", b"\"other\"", b"{\"stop\":{\"grace\":-1}}", b"{\"start\":{}}"] {
            decode::<Request>(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_value_that_is_no_packet_is_refused() {
        let failure = Failure { kind: ErrorKind::System, exit_code: 1, chain: "\u{1}".repeat(MAX_CHAIN) };
        // Each byte is six as JSON.
        assert!(encode(&Reply::Failed(failure.into())).is_ok());
        encode(&"x".repeat(MAX_PACKET)).unwrap_err();
    }
}
