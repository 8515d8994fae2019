use super::*;
use crate::agent::ecs::definition::Definition;

/// Database with a health check; a job that needs it healthy; a server that needs the job's success.
fn three() -> Definition {
    serde_json::from_value(serde_json::json!({
        "family": "f",
        "containerDefinitions": [
            {"name": "db", "image": "i", "memory": 8, "healthCheck": {"command": ["CMD", "x"]}},
            {"name": "job", "image": "i", "memory": 8, "essential": false,
             "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
            {"name": "server", "image": "i", "memory": 8,
             "dependsOn": [{"containerName": "job", "condition": "SUCCESS"}]},
        ],
    }))
    .unwrap()
}

const NOW: Duration = Duration::from_secs(1_000_000);

fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

struct Now {
    phase: ContainerPhase,
    doing: Doing,
    exit_code: Option<i32>,
    health: Option<HealthStatus>,
    started: Option<Timestamp>,
}

impl Now {
    fn new(phase: ContainerPhase, exit_code: Option<i32>, started: Option<Timestamp>) -> Self {
        Self { phase, doing: Doing::Nothing, exit_code, health: None, started }
    }
}

struct Scene {
    definition: Definition,
    states: Vec<Now>,
}

impl Scene {
    fn new(definition: Definition) -> Self {
        let states = definition
            .container_definitions
            .iter()
            .map(|_| Now::new(ContainerPhase::Pending, None, None))
            .collect();
        Self { definition, states }
    }

    fn runs(&mut self, at: usize) -> &mut Self {
        self.states[at] = Now::new(ContainerPhase::Running, None, Some(now()));
        self
    }

    fn ends(&mut self, at: usize, code: i32) -> &mut Self {
        self.states[at] = Now::new(ContainerPhase::Stopped, Some(code), Some(now()));
        self
    }

    fn health(&mut self, at: usize, health: HealthStatus) -> &mut Self {
        self.states[at].health = Some(health);
        self
    }

    fn plan_at(&self, stopping: bool, now: Timestamp) -> Plan {
        let looks: Vec<Look<'_>> = self
            .definition
            .container_definitions
            .iter()
            .zip(&self.states)
            .map(|(definition, now)| Look {
                definition,
                phase: now.phase,
                doing: now.doing,
                exit_code: now.exit_code,
                health: now.health,
                started: now.started,
            })
            .collect();
        plan(&looks, stopping, now)
    }

    /// What is done, without what is only told.
    fn does(&self) -> Vec<Action> {
        let is_told = |action: &Action| matches!(action, Action::Wait(..));
        self.plan_at(false, now()).actions.into_iter().filter(|action| !is_told(action)).collect()
    }
}

#[test]
fn starts_what_waits_for_nothing_and_tells_what_the_others_wait_for() {
    let scene = Scene::new(three());
    let plan = scene.plan_at(false, now());
    assert_eq!(
        plan.actions,
        [
            Action::Start(0),
            Action::Wait(1, "waits for container \"db\" to be healthy".into()),
            Action::Wait(2, "waits for container \"job\" to end with exit code 0".into()),
        ]
    );
    assert_eq!(plan.again, None);
}

#[test]
fn three_containers_start_one_after_the_other() {
    let mut scene = Scene::new(three());
    assert_eq!(scene.runs(0).does(), []);
    assert_eq!(scene.health(0, HealthStatus::Healthy).does(), [Action::Start(1)]);
    scene.states[1].doing = Doing::Starting;
    assert_eq!(scene.does(), []);
    assert_eq!(scene.runs(1).does(), []);
    assert_eq!(scene.ends(1, 0).does(), [Action::Start(2)]);
    assert_eq!(scene.runs(2).does(), [Action::Running]);
}

#[test]
fn a_dependency_that_cannot_come_about_fails_the_task() {
    let mut scene = Scene::new(three());
    scene.runs(0).health(0, HealthStatus::Healthy);
    for code in [1, 137] {
        let [Action::Fail(StopCode::TaskFailedToStart, reason)] = &scene.ends(1, code).does()[..] else {
            panic!("{:?}", scene.does())
        };
        assert!(reason.contains("\"server\"") && reason.ends_with(&format!("ended with exit code {code}")));
    }
    let mut scene = Scene::new(three());
    scene.runs(0).health(0, HealthStatus::Unhealthy);
    assert!(matches!(&scene.does()[..], [Action::Fail(StopCode::TaskFailedToStart, _)]));
}

#[test]
fn a_start_timeout_is_counted_from_the_start_of_the_dependency() {
    let mut definition = three();
    definition.container_definitions[0].start_timeout = Some(10);
    let mut scene = Scene::new(definition);
    scene.runs(0).health(0, HealthStatus::Unhealthy);
    let later = |seconds| Timestamp::from_unix(NOW + Duration::from_secs(seconds));
    assert_eq!(scene.plan_at(false, later(9)).again, Some(later(10)));
    let plan = scene.plan_at(false, later(10));
    let [Action::Fail(StopCode::TaskFailedToStart, reason)] = &plan.actions[..] else { panic!("{plan:?}") };
    assert!(reason.contains("startTimeout of 10 s"), "{reason}");
}

#[test]
fn an_essential_end_ends_the_task() {
    let mut scene = Scene::new(three());
    let reason = "Essential container in task exited".to_owned();
    let fail = [Action::Fail(StopCode::EssentialContainerExited, reason)];
    assert_eq!(scene.ends(0, 0).does(), fail);
    scene.states[0].started = None;
    assert!(matches!(&scene.does()[..], [Action::Fail(StopCode::TaskFailedToStart, _)]));
    let mut scene = Scene::new(three());
    scene.runs(0).ends(1, 0).runs(2);
    assert_eq!(scene.does(), [Action::Running]);
}

#[test]
fn stops_in_the_reverse_order_of_dependencies() {
    let mut scene = Scene::new(three());
    scene.runs(0).runs(1).runs(2);
    let does = |scene: &Scene| scene.plan_at(true, now()).actions;
    assert_eq!(does(&scene), [Action::Stop(2)]);
    scene.states[2].doing = Doing::Stopping;
    assert_eq!(does(&scene), []);
    scene.ends(2, 0);
    assert_eq!(does(&scene), [Action::Stop(1)]);
    scene.ends(1, 0);
    assert_eq!(does(&scene), [Action::Stop(0)]);
    scene.ends(0, 143);
    assert_eq!(does(&scene), [Action::Over]);
}

#[test]
fn what_was_not_started_never_is_once_the_task_stops() {
    let mut scene = Scene::new(three());
    scene.runs(0);
    scene.states[1].doing = Doing::Starting;
    let does = |scene: &Scene| scene.plan_at(true, now()).actions;
    // The job is being started: what it depends on stays until it has ended.
    assert_eq!(does(&scene), [Action::Never(2)]);
    scene.runs(1).ends(2, 0);
    assert_eq!(does(&scene), [Action::Stop(1)]);
}
