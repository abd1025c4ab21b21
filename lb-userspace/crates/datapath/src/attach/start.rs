//! Attaching at the start: at once, or on a thread beside the rest of the start.

use std::{io, sync::Arc, thread};

use tokio::sync::{oneshot, watch};

use super::{
    super::{
        faults::PartReporter, held::HeldPins, load::EarlierPrograms, load::Loader, netlink::Client, pin::Pins,
    },
    keeper::Keeper,
};
use crate::{
    attach::{
        attacher::{AttachPlan, Attacher},
        find::Wanted,
        reserve::Reserved,
    },
    error::{DatapathError, chain},
    interface::Interface,
    state::xdp_mode::XdpModeChoice,
};

/// The end of [`crate::Datapath::begin`]: the program runs on the interfaces, or an error.
pub type AttachResult = oneshot::Receiver<Result<(), DatapathError>>;

/// All that attaching needs.
pub(in super::super) struct AttachTask {
    pub(in super::super) client: Client,
    pub(in super::super) loader: Loader,
    pub(in super::super) pins: Pins,
    pub(in super::super) choice: XdpModeChoice,
    pub(in super::super) wanted: Vec<Wanted>,
    pub(in super::super) plan: AttachPlan,
    pub(in super::super) reserved: Option<Reserved>,
    pub(in super::super) shown: watch::Sender<Arc<[Interface]>>,
    pub(in super::super) reporter: PartReporter,
}

/// The keeper, and how attaching ended.
type Attaching = (oneshot::Receiver<Keeper>, AttachResult);

impl AttachTask {
    /// Attaches at once. If that fails, the programs that were loaded for it go again.
    pub(in super::super) fn run_here(self) -> Result<Attaching, DatapathError> {
        let (to_keeper, keeper) = oneshot::channel();
        let (to_result, result) = oneshot::channel();
        let earlier = EarlierPrograms::of(&self.pins);
        let keeper_of_all = self.run().map_err(|(error, pins)| {
            let restored = earlier.map(|earlier| earlier.restore(&pins));
            if let Ok(Err(error)) = restored {
                tracing::warn!(error = chain(&error), "a start that failed leaves pins");
            }
            error
        })?;
        // Both are read later.
        let _ = to_keeper.send(keeper_of_all);
        let _ = to_result.send(Ok(()));
        Ok((keeper, result))
    }

    /// Attaches on a thread. If that fails, nothing stays pinned: there was nothing before.
    pub(in super::super) fn run_beside(self) -> io::Result<Attaching> {
        let (to_keeper, keeper) = oneshot::channel();
        let (to_result, result) = oneshot::channel();
        let work = move || {
            let attached = match self.run() {
                Ok(keeper) => {
                    // An error means that the daemon ends.
                    let _ = to_keeper.send(keeper);
                    Ok(())
                }
                Err((error, pins)) => {
                    // The first error matters more than one of cleaning up.
                    let _ = pins.remove_all();
                    pins.remove_base();
                    Err(error)
                }
            };
            // An error means that the daemon ends.
            let _ = to_result.send(attached);
        };
        thread::Builder::new().name("lb-attach".to_owned()).spawn(work)?;
        Ok((keeper, result))
    }

    fn run(self) -> Result<Keeper, (DatapathError, Pins)> {
        let Self {
            mut client,
            loader,
            pins,
            choice,
            wanted,
            plan,
            reserved,
            shown,
            reporter,
        } = self;
        let attacher = Attacher::new(&mut client, loader, &pins, choice);
        let attached = attacher
            .with_reserved(reserved)
            .attach(&wanted, &plan)
            .and_then(|attached| Ok((attached, HeldPins::open(&pins)?)));
        match attached {
            Ok((attached, held)) => {
                let pins = (pins, held);
                Ok(Keeper::new(client, pins, choice, attached, shown, reporter))
            }
            Err(error) => Err((error, pins)),
        }
    }
}
