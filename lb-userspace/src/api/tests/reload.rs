//! `POST /v1/reload`, with a real file.

use super::*;

async fn reload(server: &Server) -> Result<Changed, CliError> {
    let path = "/v1/reload";
    server.client.change(Method::POST, path, None::<&()>).await
}

/// An operator who reloads must see what changed, or each error with its place, and lose nothing by a bad file.
#[tokio::test(start_paused = true)]
async fn reload_shows_what_changed_or_every_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_with(ConfigFile::of(&[file.path().to_owned()])).await;
    let name = file.path().display().to_string();
    let exported = server.client.text("/v1/export").await.unwrap();
    std::fs::write(file.path(), exported.replace("weight = 20", "weight = 30")).unwrap();
    let changed = reload(&server).await.unwrap();
    assert_eq!(changed.diff, ["~ backend web/b: weight 20 -> 30"]);
    let [moved] = &changed.moved[..] else {
        panic!("{changed:?}");
    };
    assert!(moved.share > 0.0, "new flows that go elsewhere: {moved:?}");
    assert!(!reload(&server).await.unwrap().changed);

    std::fs::write(file.path(), "[lb]\ntransition = 7\n[[service]]\nname = 1\n").unwrap();
    let refused = reload(&server).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Failed);
    let places: Vec<_> = refused
        .details
        .iter()
        .map(|error| (&*error.file, error.line))
        .collect();
    assert!(
        places.contains(&(&*name, 2)) && places.contains(&(&*name, 4)),
        "{places:?}"
    );
    assert!(refused.to_string().contains("nothing was changed"), "{refused}");
    let status = server.client.get::<types::Status>("/v1/status").await.unwrap();
    assert!(
        status.problems[0].message.contains("reload refused"),
        "{status:?}"
    );
    assert_eq!(status.services.len(), 1);
    std::fs::remove_file(file.path()).unwrap();
    let refused = reload(&server).await.unwrap_err();
    assert!(
        refused.to_string().contains(&name) && refused.hint.is_some(),
        "{refused}"
    );
    let events = server.rig.events.list(0, None);
    let refusals = events
        .iter()
        .filter(|event| event.message.contains("reload refused"));
    let authors: Vec<_> = refusals.map(|event| event.by.is_some()).collect();
    assert_eq!(authors, [true, true], "who tried it: {events:?}");
}

/// Otherwise a reload with another interface does nothing, and an operator looks elsewhere.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_restart_is_a_warning_and_stays_a_problem() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_with(ConfigFile::of(&[file.path().to_owned()])).await;
    let exported = server.client.text("/v1/export").await.unwrap();
    let of_eth7 = exported.clone() + "\n[lb]\ninterfaces = [\"eth7\"]\n";
    let problems = async || {
        server
            .client
            .get::<types::Status>("/v1/status")
            .await
            .unwrap()
            .problems
    };
    for (text, count) in [(&of_eth7, 1), (&exported, 0)] {
        std::fs::write(file.path(), text).unwrap();
        let changed = reload(&server).await.unwrap();
        assert_eq!(changed.warnings.len(), count, "{changed:?}");
        let problems = problems().await;
        let waits = problems
            .iter()
            .filter(|problem| problem.message.contains("`interfaces`"));
        assert_eq!(waits.count(), count, "{problems:?}");
    }
}

#[tokio::test]
async fn reload_without_a_file_names_another_way() {
    let server = Server::start().await;
    let refused = reload(&server).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Failed);
    assert!(
        refused.to_string().contains("started without --config"),
        "{refused}"
    );
    assert!(refused.to_string().contains("lb apply FILE"), "{refused}");
    let status = server.client.get::<types::Status>("/v1/status").await.unwrap();
    assert_eq!(status.problems, []);
}

/// A reload must not succeed while the kernel forwards by another state.
#[tokio::test(start_paused = true)]
async fn reload_fails_while_the_state_in_force_is_not_programmed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_with(ConfigFile::of(&[file.path().to_owned()])).await;
    let checks = json!({ "health": { "kind": "tcp" } });
    server
        .ask(Method::PATCH, "/v1/services/web", &checks)
        .await
        .unwrap();
    let exported = server.client.text("/v1/export").await.unwrap();
    std::fs::write(file.path(), exported).unwrap();
    assert!(reload(&server).await.is_ok());
    server.rig.world.lock().program_fails = true;
    let id = ("web".parse().unwrap(), "a".parse().unwrap());
    let down = crate::health::Health::Down;
    server.rig.verdict(CheckId(id.0, id.1), down).await;
    let late = reload(&server).await.unwrap_err();
    assert_eq!(late.exit, Exit::Failed);
    assert!(late.to_string().contains("not programmed"), "{late}");
    server.rig.world.lock().program_fails = false;
    assert!(reload(&server).await.is_ok());
}
