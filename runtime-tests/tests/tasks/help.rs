//! Requests for containers, and waiting for what they write.
use crate::world::{World, id};
use corten::engine::options::Options;
use corten::engine::record::Record;
use corten::engine::specgen::process::Overrides;
use corten::engine::task::{ContainerRequest, TaskRecord};
use runtime_tests::{events, needs};
use std::process::{Command, Stdio};

impl World {
    /// A container that runs a shell command.
    pub fn request(&self, name: &str, script: &str) -> ContainerRequest {
        ContainerRequest {
            name: name.to_owned(),
            image: "localhost/test".to_owned(),
            overrides: Overrides {
                args: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()],
                ..Overrides::default()
            },
            options: Options::default(),
            stop_signal: None,
            data: serde_json::Value::Null,
        }
    }

    pub fn make(&self, task: &TaskRecord, request: ContainerRequest) -> Record {
        let store = self.store();
        let image = store.resolve(&request.image).unwrap();
        self.engine.create_in_task(&store, &id(task), &image, request).unwrap()
    }

    /// Waits for one line of the container's output.
    pub fn await_output(&self, record: &Record, text: &str) {
        let mut logs = Command::new(needs::corten())
            .args(["logs", "-f", &record.id])
            .env("CORTEN_ROOT", &self.engine.root)
            .env("CORTEN_STATE", &self.engine.state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        events::Lines::new(logs.stdout.take().unwrap()).until(text);
        logs.kill().unwrap();
        logs.wait().unwrap();
    }
}
