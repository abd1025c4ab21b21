//! The stored state: the desired state and the configuration file that was applied last.

use std::{collections::BTreeSet, sync::Arc};

use super::{desired::Desired, discovered, names::ServiceName};
use crate::{
    author::Author,
    config::{
        Config,
        diff::{self, Change, Diff, Item, Subject},
    },
};

/// A desired state with the configuration file that it began with, so that a restart can distinguish a changed file
/// from changes made by command.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stored {
    /// The state in force.
    pub desired: Arc<Desired>,
    /// The content of the configuration file that was applied last; `None` if there was none, or if it is unknown.
    pub applied: Option<Arc<Config>>,
    /// Who made the revision in force, if a command did.
    pub by: Option<Author>,
}

impl Stored {
    /// A state that no file was applied to.
    pub fn by_command(desired: Desired) -> Self {
        Self {
            desired: Arc::new(desired),
            applied: None,
            by: None,
        }
    }

    /// The author of `next`: the present one while the revision is the same.
    pub fn author_of(&self, next: &Desired) -> Option<Author> {
        let same = next.revision == self.desired.revision;
        self.by.clone().filter(|_| same)
    }

    /// Changes made by command since the file was applied; empty without a file. Backends found by host name do not
    /// count.
    pub fn by_commands(&self) -> Diff {
        let applied = self.applied.as_ref();
        applied
            .map(|applied| diff::diff(&discovered::carry(&applied.desired, &self.desired), &self.desired))
            .unwrap_or_default()
    }

    /// Changes made by command that `next` changes again.
    pub fn replaced_by(&self, next: &Desired) -> Diff {
        overlap(&self.by_commands(), diff::diff(&self.desired, next))
    }
}

/// The occasion on which a configuration file is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileOrder {
    /// `lb apply`: the state becomes the file's.
    Apply,
    /// A start, `lb reload` or SIGHUP: only a file that has changed since it was applied changes the state.
    Reload,
}

/// A file without services was to replace a state that has some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the file has no services, and {services} {} in force", if *services == 1 { "is" } else { "are" })]
pub struct NoServices {
    /// Services in force.
    pub services: usize,
}

/// The content that `stored` gets from `file`, with backends found by host name; its revision does not count. `empty`: also where
/// the file has no service and the state has some.
///
/// # Errors
/// [`NoServices`], unless `empty`. A file that never had services does not affect services made by command: a
/// reload takes only its settings.
pub fn content_by_file(
    stored: &Stored,
    file: &Desired,
    order: FileOrder,
    empty: bool,
) -> Result<Desired, NoServices> {
    let present = &stored.desired;
    let applied = stored.applied.as_ref().map(|applied| &applied.desired);
    let reload = order == FileOrder::Reload;
    if reload && applied.is_some_and(|applied| same_content(applied, file)) {
        return Ok((**present).clone());
    }
    if !file.services.is_empty() || present.services.is_empty() || empty {
        return Ok(discovered::carry(file, present));
    }
    if reload && applied.is_some_and(|applied| applied.services.is_empty()) {
        return Ok(Desired {
            settings: file.settings.clone(),
            ..(**present).clone()
        });
    }
    Err(NoServices {
        services: present.services.len(),
    })
}

/// Whether two states differ in their revision at most.
pub fn same_content(one: &Desired, other: &Desired) -> bool {
    one.settings == other.settings && one.services == other.services
}

/// The items of `change` with the same subjects as `commands`.
fn overlap(commands: &Diff, change: Diff) -> Diff {
    let about = |item: &Item| {
        commands
            .items
            .iter()
            .find(|command| is_about(item, &command.what))
    };
    let items = change.items.into_iter().filter_map(|mut item| {
        let command = about(&item)?;
        if command.change == Change::Changed && item.change == Change::Changed {
            let keys: BTreeSet<&str> = command.fields.iter().map(|field| field.key.as_str()).collect();
            item.fields.retain(|field| keys.contains(field.key.as_str()));
            if item.fields.is_empty() {
                return None;
            }
        }
        Some(item)
    });
    Diff {
        items: items.collect(),
    }
}

/// Whether `item` has the subject `what`, or removes its service.
fn is_about(item: &Item, what: &Subject) -> bool {
    let is_its_service = |service: &ServiceName| item.what == Subject::Service(service.clone());
    item.what == *what || (item.change == Change::Removed && what.part_of().is_some_and(is_its_service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{backend::Admin, testing};

    fn file(weights: &[(&str, u16)]) -> Desired {
        if weights.is_empty() {
            return Desired::default();
        }
        testing::desired([testing::service("web", 1, weights)])
    }

    fn stored(applied: Option<&Desired>, desired: Desired) -> Stored {
        let config = |desired: &Desired| Config {
            desired: desired.clone(),
            ..Config::default()
        };
        Stored {
            desired: Arc::new(desired),
            applied: applied.map(|applied| Arc::new(config(applied))),
            by: None,
        }
    }

    /// `file` with backend a drained and backend b of another weight, as commands leave them.
    fn changed(mut file: Desired) -> Desired {
        for service in file.services.values_mut() {
            service.backends[0].admin = Admin::Draining;
            service.backends[1].weight = 70;
        }
        file
    }

    #[test]
    fn only_a_changed_file_or_an_order_undoes_commands() {
        let first = file(&[("a", 10), ("b", 20)]);
        let second = file(&[("a", 10), ("b", 30)]);
        let state = stored(Some(&first), changed(first.clone()));
        let order = |file, order| content_by_file(&state, file, order, false).unwrap();
        assert_eq!(order(&first, FileOrder::Reload), *state.desired);
        assert_eq!(order(&second, FileOrder::Reload), second);
        assert_eq!(order(&first, FileOrder::Apply), first);
        let unknown = stored(None, changed(first.clone()));
        let next = content_by_file(&unknown, &first, FileOrder::Reload, false).unwrap();
        assert_eq!(next, first, "the applied file is unknown: the file wins");
    }

    #[test]
    fn same_file_again_keeps_backends_found_by_host_name() {
        let mut service = testing::service("web", 1, &[("a", 10)]);
        service.hosts.push(testing::host("app", "app.example.org"));
        let file = testing::desired([service]);
        let (web, app) = ("web".parse().unwrap(), "app".parse().unwrap());
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let (found, _) = discovered::answered(&file, &web, &app, &addresses.into()).unwrap();
        for order in [FileOrder::Reload, FileOrder::Apply] {
            let next = content_by_file(&stored(Some(&file), found.clone()), &file, order, false).unwrap();
            assert_eq!(found.replace(next).unwrap(), found, "{order:?}");
        }
        assert!(stored(Some(&file), found.clone()).by_commands().is_empty());
        let mut drained = found;
        for service in drained.services.values_mut() {
            service.backends[1].admin = Admin::Draining;
        }
        let state = stored(Some(&file), drained);
        let by_commands = state.by_commands().to_string();
        assert!(
            by_commands.starts_with("~ backend web/app-10.0.0.1: admin"),
            "{by_commands}"
        );
        assert_eq!(by_commands.lines().count(), 1);
        let next = content_by_file(&state, &file, FileOrder::Apply, false).unwrap();
        let replaced = state.replaced_by(&next).to_string();
        assert_eq!(
            replaced.lines().count(),
            1,
            "an operator's file undoes it: {replaced}"
        );
    }

    #[test]
    fn file_without_services_removes_none_unless_ordered() {
        use FileOrder::{Apply, Reload};
        let web = file(&[("a", 10), ("b", 20)]);
        let mut settings = Desired::default();
        settings.settings.transition = std::time::Duration::from_secs(7);
        let refused = Err(NoServices { services: 1 });
        let kept = Ok(Desired {
            settings: settings.settings.clone(),
            ..web.clone()
        });
        for (applied, present, order, empty, expected) in [
            (Some(&web), &web, Reload, false, refused.clone()),
            (None, &web, Reload, false, refused.clone()),
            (Some(&web), &web, Apply, false, refused.clone()),
            (Some(&Desired::default()), &web, Apply, false, refused),
            (Some(&Desired::default()), &web, Reload, false, kept),
            (Some(&web), &web, Apply, true, Ok(settings.clone())),
            (Some(&web), &web, Reload, true, Ok(settings.clone())),
            (
                Some(&web),
                &Desired::default(),
                Reload,
                false,
                Ok(settings.clone()),
            ),
        ] {
            let state = stored(applied, present.clone());
            assert_eq!(
                content_by_file(&state, &settings, order, empty),
                expected,
                "{order:?}"
            );
        }
    }

    #[test]
    fn only_commands_that_a_file_undoes_are_listed() {
        let first = file(&[("a", 10), ("b", 20)]);
        let state = stored(Some(&first), changed(first.clone()));
        let lines = |diff: Diff| -> Vec<String> { diff.to_string().lines().map(str::to_owned).collect() };
        assert_eq!(
            lines(state.by_commands()),
            [
                "~ backend web/a: admin \"enabled\" -> \"draining\"",
                "~ backend web/b: weight 20 -> 70"
            ]
        );
        for (next, expected) in [
            (
                file(&[("a", 11), ("b", 20)]),
                vec![
                    "~ backend web/a: admin \"draining\" -> \"enabled\"",
                    "~ backend web/b: weight 70 -> 20",
                ],
            ),
            (file(&[("b", 70)]), vec!["- backend web/a"]),
            (Desired::default(), vec!["- service web"]),
            (changed(file(&[("a", 11), ("b", 20)])), vec![]),
        ] {
            assert_eq!(lines(state.replaced_by(&next)), expected);
        }
        assert!(
            stored(None, changed(first.clone()))
                .replaced_by(&first)
                .is_empty()
        );
        // The name of one service is a prefix of the other's.
        let two = |weight| {
            let web = testing::service("web", 1, &[("a", 10)]);
            testing::desired([web, testing::service("web2", 2, &[("b", weight)])])
        };
        let state = stored(Some(&two(20)), two(70));
        let left = testing::desired([testing::service("web2", 2, &[("b", 70)])]);
        assert_eq!(lines(state.replaced_by(&left)), [""; 0]);
    }
}
