//! What workers do.
use crate::engine::Engine;
use crate::engine::error::{EngineError, Failure};
use crate::engine::exec::Request;
use crate::engine::launch::prepare;
use crate::engine::monitor::begin::{Begun, begin, failed};
use crate::engine::monitor::watch::Watch;
use crate::engine::names::Id;
use crate::engine::record::Record;
use crate::engine::task::control::{
    ExecBody, ExecHead, ExecStreams, MAX_FILE, Report, StartedReport, Traits,
};
use crate::engine::task::worker::Errand;
use crate::engine::task::{setup, teardown};
use crate::image::store::Store;
use crate::runtime::create::Stdio;
use crate::runtime::state::ProcessId;
use crate::sys::{SysError, process};
use nix::unistd::getppid;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

/// Makes what the containers of the task share.
pub(super) fn set_up(engine: &Engine, id: &Id, errand: &Errand) -> Result<(), Failure> {
    let work = || -> Result<(), EngineError> {
        let missing = || EngineError::NoSuchTask { given: id.to_string() };
        let record = engine.task_record(id)?.ok_or_else(missing)?;
        let mut run = setup::set_up(engine, &record)?;
        run.monitor =
            ProcessId::of(getppid())?.ok_or_else(|| EngineError::MonitorLost { id: id.to_string() })?;
        engine.write_task_run(id, &run)
    };
    work().map_err(failed)?;
    errand.done()
}

/// Removes it; with `all`, also the task's records.
pub(super) fn tear_down(engine: &Engine, id: &Id, all: bool, errand: &Errand) -> Result<(), Failure> {
    let work = || -> Result<(), EngineError> {
        let missing = || EngineError::NoSuchTask { given: id.to_string() };
        let record = engine.task_record(id)?.ok_or_else(missing)?;
        teardown::tear_down(engine, &record)?;
        if all { engine.discard_task(id, &record.spec.name) } else { engine.write_task_end(id) }
    };
    work().map_err(failed)?;
    errand.done()
}

/// A container of this task, and what its end needs.
fn look_up(engine: Engine, id: Id, restarts: u32) -> Result<(Record, Watch), EngineError> {
    let missing = || EngineError::NoSuchContainer { given: id.to_string() };
    let record = engine.record(&id)?.ok_or_else(missing)?;
    let store = Store::open(&engine.root)?;
    let mut watch = Watch::new(engine, store, id, &record, true);
    watch.restarts = restarts;
    Ok((record, watch))
}

fn check_task(record: &Record, task: &Id) -> Result<(), EngineError> {
    match record.task.as_deref() == Some(task.as_str()) {
        true => Ok(()),
        false => Err(EngineError::NoSuchContainer { given: record.id.clone() }),
    }
}

/// Starts a container and hands it to the monitor; a failure is recorded.
pub(super) fn start(
    engine: Engine,
    task: &Id,
    id: Id,
    restarts: u32,
    errand: &Errand,
) -> Result<(), Failure> {
    let (record, watch) = look_up(engine, id, restarts).map_err(failed)?;
    check_task(&record, task).map_err(failed)?;
    let begun = watch
        .store
        .resolve(&record.image_id)
        .map_err(EngineError::from)
        .and_then(|image| prepare(&watch.engine, &watch.store, &image, &record, None))
        .map_err(failed)
        .and_then(|prepared| begin(&watch, &record, prepared, getppid()));
    begun.and_then(|begun| hand_over(&watch, &record, begun, errand).map_err(failed)).inspect_err(|failure| {
        watch.give_up(failure.clone());
    })
}

fn hand_over(watch: &Watch, record: &Record, begun: Begun, errand: &Errand) -> Result<(), EngineError> {
    let ends = &begun.ends;
    let streams = [&ends.stdin, &ends.outputs[0], &ends.outputs[1]];
    let options = &record.options;
    let report = StartedReport {
        pid: begun.started.pid.as_raw(),
        time: begun.time,
        traits: Traits {
            tty: options.tty,
            stdin_once: options.task.stdin_once,
            restart: options.task.restart.clone(),
            stop_signal: options.stop_signal.0,
            stop_timeout: options.stop_timeout,
            log: watch.engine.log_path(record)?,
        },
        streams: streams.map(Option::is_some),
    };
    let mut fds = vec![begun.log.as_fd(), begun.listener.as_fd()];
    fds.extend(streams.into_iter().flatten().map(AsFd::as_fd));
    errand.report(&Report::Started(Box::new(report)), &fds)
}

/// Removes what is there of a start whose worker died, and records the failure.
pub(super) fn clean_up(
    engine: Engine,
    id: Id,
    restarts: u32,
    failure: Failure,
    errand: &Errand,
) -> Result<(), Failure> {
    let (_, watch) = look_up(engine, id, restarts).map_err(failed)?;
    watch.give_up(failure);
    errand.done()
}

/// Ends what is left of a container whose init has ended, and records its end.
pub(super) fn end(engine: Engine, id: &Id, errand: &Errand) -> Result<(), Failure> {
    let work = || -> Result<(), EngineError> {
        let (_, watch) = look_up(engine, id.clone(), 0)?;
        errand.report(&Report::Quiet { oom_killed: watch.make_quiet() }, &[])?;
        watch.close(&errand.verdict()?.ended)
    };
    work().map_err(failed)?;
    errand.done()
}

/// Adds a process to a container and hands it to the monitor.
pub(super) fn exec(
    engine: &Engine,
    task: &Id,
    id: &Id,
    head: ExecHead,
    fds: &[OwnedFd],
    errand: &Errand,
) -> Result<(), Failure> {
    let work = || -> Result<(), EngineError> {
        let mut fds = fds.iter();
        let body = match head.request {
            Some(body) => body,
            None => read_body(fds.next())?,
        };
        let mut given = |there: bool| match there.then(|| fds.next()).flatten() {
            Some(fd) => process::duplicate(fd),
            None => Ok(File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map_err(SysError::io("open", "/dev/null"))?
                .into()),
        };
        let stdio = match head.stdio {
            ExecStreams::Terminal => Stdio::Terminal,
            ExecStreams::Given([stdin, stdout, stderr]) => {
                Stdio::Fds { stdin: given(stdin)?, stdout: given(stdout)?, stderr: given(stderr)? }
            }
        };
        let missing = || EngineError::NoSuchContainer { given: id.to_string() };
        let record = engine.record(id)?.ok_or_else(missing)?;
        check_task(&record, task)?;
        let request = Request {
            args: body.args,
            env: body.env,
            cwd: body.cwd,
            user: body.user,
            tty: stdio.is_terminal(),
            ..Request::default()
        };
        let started = engine.add_process(&record, &request, stdio)?;
        let console: Vec<_> = started.console.iter().map(AsFd::as_fd).collect();
        errand.report(&Report::Executed { pid: started.pid.as_raw() }, &console)
    };
    work().map_err(failed)
}

fn read_body(file: Option<&OwnedFd>) -> Result<ExecBody, EngineError> {
    let wrong = |reason| EngineError::Frame { peer: "client of a task's monitor", reason };
    let file = file.ok_or_else(|| wrong("a process without its arguments"))?;
    let mut file = File::from(process::duplicate(file)?);
    // A pipe or terminal would have us wait.
    if !file.metadata().map_err(SysError::io("fstat", "arguments"))?.is_file() {
        return Err(wrong("arguments that are not in a file"));
    }
    file.rewind().map_err(SysError::io("lseek", "arguments"))?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).map_err(SysError::io("read", "arguments"))?;
    crate::engine::task::control::decode(&text)
}
