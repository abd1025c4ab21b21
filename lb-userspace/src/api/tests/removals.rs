//! Changes that remove much are refused until somebody confirms them.

use super::*;

fn apply(toml: &str, dry_run: bool, allow_removals: bool) -> ApplyRequest {
    ApplyRequest {
        file: "lb.toml".into(),
        toml: toml.into(),
        more: Vec::new(),
        dry_run,
        allow_empty: false,
        allow_removals,
    }
}

/// A file for another machine, or one that was cut short, must not take away what serves clients.
#[tokio::test]
async fn a_file_that_removes_much_has_to_be_confirmed() {
    let server = Server::start().await;
    let other = "[[service]]\nname = \"other\"\naddress = \"192.0.2.9\"\nport = 80\n";
    let path = "/v1/apply";
    let refused = server
        .ask(Method::POST, path, &apply(other, false, false))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code, refused.exit),
        (Some(ErrorCode::Unconfirmed), Exit::Failed)
    );
    let text = refused.to_string();
    assert!(
        text.contains("the only service, with 2 backends") && text.contains("--yes"),
        "{text}"
    );
    assert_eq!(server.rig.control.view().desired.revision.0, 0);
    let tried = server
        .ask(Method::POST, path, &apply(other, true, false))
        .await
        .unwrap();
    assert!(
        tried.warnings[0].contains("refused unless it is confirmed"),
        "{tried:?}"
    );
    let emptied = server
        .ask(Method::POST, path, &apply("", true, false))
        .await
        .unwrap();
    assert!(emptied.warnings[0].contains("the only service"), "{emptied:?}");
    let tried = server
        .ask(Method::POST, path, &apply(other, true, true))
        .await
        .unwrap();
    assert_eq!(tried.warnings, [""; 0]);
    let done = server
        .ask(Method::POST, path, &apply(other, false, true))
        .await
        .unwrap();
    assert!(done.diff.contains(&"- service web".to_owned()), "{done:?}");
}

/// A reload asks for the same, so that `systemctl reload` fails; SIGHUP takes a file with services, since it cannot ask.
#[tokio::test]
async fn a_reload_that_removes_much_has_to_be_confirmed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_with(ConfigFile::of(&[file.path().to_owned()])).await;
    let reload = async |query: &str| {
        let path = format!("/v1/reload{query}");
        server
            .client
            .change::<Changed>(Method::POST, &path, None::<&()>)
            .await
    };
    let left = "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n";
    std::fs::write(file.path(), left).unwrap();
    let refused = reload("").await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::Unconfirmed), "{refused}");
    let status = server.client.get::<types::Status>("/v1/status").await.unwrap();
    assert!(
        status.problems[0].message.contains("2 of 2 backends"),
        "{status:?}"
    );
    std::fs::write(file.path(), "[lb]\n").unwrap();
    assert!(reload("").await.is_err());
    assert_eq!(reload("?allow_empty=true").await.unwrap().diff, ["- service web"]);
    std::fs::write(file.path(), left).unwrap();
    assert!(reload("?allow_removals=true").await.unwrap().changed);
}
