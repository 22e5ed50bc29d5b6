//! The same image, opened by `outhaul serve`: it must show what our own look at it found.

use anyhow::ensure;
use tests::{local, world::World};

use crate::{disk::Image, images, recover::Found};

/// Starts the real broker on an image and compares.
pub(crate) fn check(image: &Image, found: &Found) -> anyhow::Result<()> {
    let mut world = World::empty()?;
    images::make(image, world.dir.path())?;
    world.start_broker()?;
    let socket = world.socket();
    for host in &found.hosts {
        let records = local::records(&socket, &host.name)?;
        let shown = records.iter().filter(|record| record.kind > 0);
        let shown = shown.map(|record| (record.offset, record.payload.as_slice()));
        let kept = found.records().filter(|record| record.host == host.name);
        let kept = kept.map(|record| (record.offset, record.payload.as_slice()));
        ensure!(shown.eq(kept), "the records of {}", host.name);
    }
    let hosts = local::get_json(&socket, "/v1/hosts")?;
    let states: Vec<_> = hosts["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|host| (host["name"].as_str(), host["state"].as_str()))
        .collect();
    let expected: Vec<_> = found
        .hosts
        .iter()
        .map(|host| {
            let state = format!("{:?}", host.state).to_lowercase();
            (host.name.clone(), state)
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, state)| (Some(name.as_str()), Some(state.as_str())))
        .collect();
    ensure!(states == expected, "{states:?}, and not {expected:?}");
    world.kill_broker();
    Ok(())
}
