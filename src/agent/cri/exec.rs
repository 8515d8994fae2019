//! Processes and connections that are added to what runs.
use super::api::*;
use super::error::{CriError, Result, invalid};
use super::{Cri, container, sandbox};
use crate::agent::streaming::{AttachTicket, ExecTicket, PortForwardTicket, Wanted, exec_sync};
use crate::engine::record::Status;
use crate::engine::task::TaskStatus;
use std::sync::Arc;
use std::time::Duration;

/// More words of a command than the kernel takes.
const MAX_WORDS: usize = 65_536;
/// More ports are a mistake.
const MAX_PORTS: usize = 1024;
/// What clients take in one message, less what is around the outputs.
const MAX_OUTPUT: usize = 16 * 1024 * 1024 - 4096;

/// Shortens outputs that do not go into one message together; a short one stays whole.
fn fit(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    stdout.truncate((MAX_OUTPUT / 2).max(MAX_OUTPUT.saturating_sub(stderr.len())));
    stderr.truncate(MAX_OUTPUT - stdout.len());
}

fn check_command(cmd: &[String]) -> Result<()> {
    if cmd.first().is_none_or(String::is_empty) {
        return Err(CriError::Missing { field: "cmd" });
    }
    if cmd.len() > MAX_WORDS {
        return invalid("cmd", cmd.len().to_string(), "it has too many words");
    }
    match cmd.iter().find(|word| word.contains('\0')) {
        Some(word) => invalid("cmd", word, "it has a NUL"),
        None => Ok(()),
    }
}

fn check_streams(wanted: Wanted) -> Result<()> {
    if wanted.tty && wanted.stderr {
        return invalid("stderr", "true", "a terminal has one output");
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return invalid("stdout", "false", "one of stdin, stdout and stderr must be wanted");
    }
    Ok(())
}

impl Cri {
    /// A container that runs.
    async fn running(&self, given: String) -> Result<container::Found> {
        self.node
            .blocking(move |node| {
                let found = container::find(node, &given)?;
                match node.engine.status(&found.id)? {
                    Status::Running(_) => Ok(found),
                    status => Err(CriError::State {
                        kind: "container",
                        id: found.record.id,
                        state: status.word(),
                        needed: "it must be running",
                    }),
                }
            })
            .await
    }

    /// `ExecSync`
    pub async fn exec_sync(self: &Arc<Self>, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        check_command(&request.cmd)?;
        let found = self.running(request.container_id).await?;
        // Nothing is no limit; so is what cannot be one.
        let timeout = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0);
        let limit = usize::try_from(self.node.config.cri.exec_sync_limit).unwrap_or(usize::MAX);
        let timeout = timeout.map(Duration::from_secs);
        let mut result = exec_sync(&self.node, &found.record, request.cmd, timeout, limit).await?;
        fit(&mut result.stdout, &mut result.stderr);
        Ok(ExecSyncResponse {
            stdout: result.stdout,
            stderr: result.stderr,
            exit_code: result.exit_code.into(),
        })
    }

    /// `Exec`
    pub async fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<ExecResponse> {
        check_command(&request.cmd)?;
        let ExecRequest { stdin, stdout, stderr, tty, .. } = request;
        let wanted = Wanted { stdin, stdout, stderr, tty };
        check_streams(wanted)?;
        let found = self.running(request.container_id).await?;
        let ticket = ExecTicket { container: found.id, args: request.cmd, wanted };
        Ok(ExecResponse { url: self.node.streams.exec_url(ticket)? })
    }

    /// `Attach`
    pub async fn attach(self: &Arc<Self>, request: AttachRequest) -> Result<AttachResponse> {
        let AttachRequest { stdin, stdout, stderr, tty, .. } = request;
        let wanted = Wanted { stdin, stdout, stderr, tty };
        check_streams(wanted)?;
        let found = self.running(request.container_id).await?;
        Ok(AttachResponse {
            url: self.node.streams.attach_url(AttachTicket { container: found.id, wanted })?,
        })
    }

    /// `PortForward`
    pub async fn port_forward(self: &Arc<Self>, request: PortForwardRequest) -> Result<PortForwardResponse> {
        if request.port.len() > MAX_PORTS {
            return invalid("port", request.port.len().to_string(), "there are more than 1024");
        }
        let number = |port: &i32| match u16::try_from(*port) {
            Ok(port @ 1..) => Ok(port),
            _ => invalid("port", port.to_string(), "a port is a number from 1 to 65535"),
        };
        let ports = request.port.iter().map(number).collect::<Result<Vec<_>>>()?;
        let given = request.pod_sandbox_id;
        let task = self.node.blocking(move |node| {
            let found = sandbox::find(node, &given)?;
            match node.engine.task_status(&found.id)? {
                TaskStatus::Ready(_) => Ok(found.id),
                TaskStatus::Making | TaskStatus::Stopped { .. } => Err(CriError::State {
                    kind: "pod sandbox",
                    id: found.record.id,
                    state: "not ready",
                    needed: "it must be ready",
                }),
            }
        });
        let ticket = PortForwardTicket { task: task.await?, ports };
        Ok(PortForwardResponse { url: self.node.streams.port_forward_url(ticket)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_fit_into_a_message() {
        for (out, err) in [(0, 0), (10, MAX_OUTPUT), (MAX_OUTPUT, 10), (MAX_OUTPUT, MAX_OUTPUT)] {
            let (mut stdout, mut stderr) = (vec![0; out], vec![0; err]);
            fit(&mut stdout, &mut stderr);
            assert!(stdout.len() + stderr.len() <= MAX_OUTPUT);
            assert!(stdout.len() >= out.min(MAX_OUTPUT / 2) && stderr.len() >= err.min(MAX_OUTPUT / 2));
        }
    }

    #[test]
    fn commands_and_streams() {
        check_command(&[]).unwrap_err();
        check_command(&[String::new()]).unwrap_err();
        check_command(&["a\0".into()]).unwrap_err();
        check_command(&["a".into(), String::new()]).unwrap();
        check_streams(Wanted::default()).unwrap_err();
        check_streams(Wanted { stdout: true, stderr: true, tty: true, stdin: false }).unwrap_err();
        check_streams(Wanted { stdout: true, tty: true, ..Wanted::default() }).unwrap();
    }
}
