//! Agents and the control task.

use std::time::Duration;

use super::{
    Change, Inherited, stored_agent_updates,
    testing::{Rig, pass, request},
};
use crate::{
    config::change::Request,
    events::EventKind,
    health::{
        Health,
        agent::{AgentAdmin, AgentAnswer, AgentReport, AgentSettings, AgentState, AgentView},
        settings::CheckKind,
    },
    state::{
        backend::Admin,
        desired::Desired,
        testing::{self, id},
        words::Word as _,
    },
};

const A: &str = "10.0.1.1:8080";
const B: &str = "10.0.1.2:8080";

fn desired() -> Desired {
    let mut service = testing::service("web", 1, &[("a", 100), ("b", 100)]);
    service.agent = Some(AgentSettings {
        port: Some(9),
        ..AgentSettings::default()
    });
    testing::desired([service])
}

fn word(admin: AgentAdmin, state: AgentState, percent: u16) -> AgentReport {
    AgentReport {
        word: AgentAnswer {
            admin,
            state,
            percent,
        },
        ..AgentReport::default()
    }
}

fn percent(percent: u16) -> AgentReport {
    word(AgentAdmin::Ready, AgentState::Up, percent)
}

/// Messages of agents' events so far.
fn events_of(rig: &Rig) -> Vec<String> {
    let events = rig.events.list(0, None).into_iter();
    let of_agents = events.filter(|event| event.kind == EventKind::Agent);
    of_agents
        .map(|event| format!("{} {}", event.backend.unwrap(), event.message))
        .collect()
}

async fn until_programmed(rig: &Rig, address: &str, expected: (u32, bool)) {
    rig.until(|_| rig.programmed(address) == Some(expected)).await;
}

#[tokio::test(start_paused = true)]
async fn agent_updates_are_programmed_and_reported() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    let asked: Vec<String> = rig
        .world
        .lock()
        .asked
        .iter()
        .map(|spec| spec.target.to_string())
        .collect();
    assert_eq!(asked, ["10.0.1.1:9", "10.0.1.2:9"]);
    for (update, expected) in [
        (percent(50), (50, true)),
        (word(AgentAdmin::Drain, AgentState::Up, 50), (0, true)),
        (word(AgentAdmin::Maint, AgentState::Up, 50), (0, false)),
        (percent(50), (50, true)),
        (
            AgentReport {
                reason: "disk full".into(),
                ..word(AgentAdmin::Ready, AgentState::Fail, 50)
            },
            (0, false),
        ),
        (percent(100), (100, true)),
    ] {
        rig.agent_reports(id("web", "a"), update);
        until_programmed(&rig, A, expected).await;
    }
    assert_eq!(rig.programmed(B), Some((100, true)));
    let lost = AgentReport {
        lost: Some("connection refused by 10.0.1.1:9".into()),
        ..percent(100)
    };
    rig.agent_reports(id("web", "a"), lost);
    rig.agent_reports(id("web", "b"), word(AgentAdmin::Drain, AgentState::Up, 100));
    until_programmed(&rig, B, (0, true)).await;
    assert_eq!(
        events_of(&rig),
        [
            "a agent: weight 50%",
            "a agent: drain, 50%",
            "a agent: maint, 50%",
            "a agent: 50%",
            "a agent: fail, 50% (disk full)",
            "a agent: ready",
            "a agent does not answer, its last report stays in force: connection refused by 10.0.1.1:9",
            "b agent: drain",
        ]
    );
    assert_eq!(
        rig.programmed(A),
        Some((100, true)),
        "a lost agent changes nothing"
    );
}

/// Load goes up and down all the time: rings are not built, nor events written, for each little change.
#[tokio::test(start_paused = true)]
async fn small_weight_changes_are_batched_and_not_reported() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    rig.agent_reports(id("web", "a"), percent(90));
    until_programmed(&rig, A, (90, true)).await;
    rig.world.take_log();
    for weight in [88, 86, 84, 82] {
        rig.agent_reports(id("web", "a"), percent(weight));
        rig.agent_reports(id("web", "b"), percent(weight));
        pass(Duration::from_millis(10)).await;
    }
    let log = rig.world.take_log();
    assert!(log.iter().all(|line| line.starts_with("remember")), "{log:?}");
    until_programmed(&rig, B, (82, true)).await;
    assert_eq!(rig.world.take_log(), ["program"], "all of them at once");
    let remembered = stored_agent_updates(&rig.world.lock().remembered);
    assert_eq!(
        remembered[&id("web", "a")].word.percent,
        82,
        "a restart goes on from there"
    );
    // A change that does not wait applies the waiting weights, too.
    rig.agent_reports(id("web", "a"), percent(81));
    rig.agent_reports(id("web", "b"), word(AgentAdmin::Drain, AgentState::Up, 80));
    until_programmed(&rig, B, (0, true)).await;
    assert_eq!(rig.programmed(A), Some((81, true)));
    assert_eq!(
        events_of(&rig),
        [
            "a agent: weight 90%",
            "b agent: weight 88%",
            "b agent: drain, 80%"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_operator_is_not_overruled_and_ends_it_all() {
    let rig = Rig::start(desired(), Inherited::default()).await;
    let set = |admin: Admin| {
        let request = Request::one("admin", admin.word());
        Change::SetBackend("web".parse().unwrap(), "a".parse().unwrap(), request)
    };
    rig.control
        .change(set(Admin::Disabled), None, false)
        .await
        .unwrap();
    rig.agent_reports(id("web", "a"), percent(70));
    rig.agent_reports(id("web", "b"), word(AgentAdmin::Drain, AgentState::Up, 100));
    until_programmed(&rig, B, (0, true)).await;
    assert_eq!(rig.programmed(A), Some((0, false)));
    rig.control
        .change(set(Admin::Enabled), None, false)
        .await
        .unwrap();
    assert_eq!(rig.programmed(A), Some((70, true)));
    let off = Change::SetService("web".parse().unwrap(), request("agent.enabled = false"));
    rig.control.change(off, None, false).await.unwrap();
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((100, true)), Some((100, true)))
    );
    assert_eq!(rig.world.lock().asked, []);
    // Still on its way from before.
    rig.agent_reports(id("web", "b"), word(AgentAdmin::Maint, AgentState::Up, 100));
    rig.agent_reports(id("web", "a"), percent(1));
    rig.control.change(set(Admin::Enabled), None, true).await.unwrap();
    assert_eq!(rig.programmed(B), Some((100, true)));
}

#[tokio::test(start_paused = true)]
async fn restart_keeps_agent_updates() {
    let agents = AgentView::from([
        (id("web", "a"), percent(30)),
        (id("web", "b"), word(AgentAdmin::Drain, AgentState::Up, 100)),
    ]);
    let inherited = Inherited {
        agents: agents.clone(),
        ..Inherited::default()
    };
    let rig = Rig::start(desired(), inherited).await;
    assert_eq!(
        (rig.programmed(A), rig.programmed(B)),
        (Some((30, true)), Some((0, true)))
    );
    let handed: Vec<AgentAnswer> = rig.world.lock().asked.iter().map(|spec| spec.initial).collect();
    assert_eq!(
        handed,
        [agents[&id("web", "a")].word, agents[&id("web", "b")].word]
    );
    // The engine's first report equals the stored one, so no event.
    rig.agent_reports(id("web", "a"), percent(30));
    rig.agent_reports(id("web", "b"), percent(100));
    until_programmed(&rig, B, (100, true)).await;
    assert_eq!(events_of(&rig), ["b agent: ready"]);
}

#[tokio::test(start_paused = true)]
async fn checks_and_agent_must_both_call_a_backend_up() {
    let mut desired = desired();
    desired.services.values_mut().next().unwrap().health.kind = CheckKind::Tcp;
    let rig = Rig::start(desired, Inherited::default()).await;
    for backend in ["a", "b"] {
        rig.verdict(id("web", backend), Health::Up).await;
    }
    rig.agent_reports(id("web", "a"), word(AgentAdmin::Ready, AgentState::Down, 100));
    until_programmed(&rig, A, (0, false)).await;
    rig.verdict(id("web", "a"), Health::Down).await;
    rig.agent_reports(id("web", "a"), percent(100));
    rig.agent_reports(id("web", "b"), percent(0));
    until_programmed(&rig, B, (0, true)).await;
    assert_eq!(rig.programmed(A), Some((0, false)), "its checks fail");
    rig.verdict(id("web", "a"), Health::Up).await;
    assert_eq!(rig.programmed(A), Some((100, true)));
}
