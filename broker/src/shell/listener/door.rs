//! Room for strangers: so many in all, so many for each address, and a bounded number who wait.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Clients in a handshake at once; each may hold some tens of kilobytes and a verified signature's worth of work.
pub const STRANGERS_MAX: usize = 1024;
/// Of these, from one address. The rest of that address waits.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// Connections that are not yet proven, whether waiting or not; each holds a descriptor. Past that they are closed at once.
pub const VISITORS_MAX: usize = 8192;
/// Of these, from one address: as many sandboxes as one host may hide, all coming back at once.
pub const VISITORS_PER_ADDRESS_MAX: usize = 2048;
/// The longest a client waits at the door.
pub const DELAY_MAX: Duration = Duration::from_secs(30);

/// The door. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Door {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    strangers: Arc<Semaphore>,
    visitors: Mutex<Visitors>,
}

#[derive(Debug, Default)]
struct Visitors {
    count: usize,
    by_address: BTreeMap<IpAddr, Address>,
}

/// Who comes from one address. Forgotten when nobody does.
#[derive(Debug)]
struct Address {
    count: usize,
    strangers: Arc<Semaphore>,
}

/// A connection of which it is not known yet whose it is: a load balancer is about to say. Gone when dropped.
#[derive(Debug)]
pub(super) struct Unnamed {
    inner: Arc<Inner>,
}

/// A connection at the door. Gone when dropped.
#[derive(Debug)]
pub(super) struct Visitor {
    /// Its place among all.
    unnamed: Unnamed,
    address: IpAddr,
    strangers: Arc<Semaphore>,
}

/// A connection inside that has not proven who it is. Gone when dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    _in_all: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
    _visitor: Visitor,
}

impl Default for Door {
    fn default() -> Self {
        let inner = Inner {
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            visitors: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Door {
    /// Lets a connection wait, unless too many do.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Visitor> {
        self.knock()?.named(address)
    }

    /// Lets a connection say whose it is, unless too many wait.
    pub(super) fn knock(&self) -> Option<Unnamed> {
        let mut visitors = self.inner.visitors();
        if visitors.count >= VISITORS_MAX {
            return None;
        }
        visitors.count += 1;
        Some(Unnamed {
            inner: Arc::clone(&self.inner),
        })
    }
}

impl Unnamed {
    /// Lets it wait as one of its address, unless too many of that do.
    pub(super) fn named(self, address: IpAddr) -> Option<Visitor> {
        let address = site_of(address);
        let mut visitors = self.inner.visitors();
        let here = visitors
            .by_address
            .entry(address)
            .or_insert_with(|| Address {
                count: 0,
                strangers: Arc::new(Semaphore::new(STRANGERS_PER_ADDRESS_MAX)),
            });
        if here.count >= VISITORS_PER_ADDRESS_MAX {
            // Its own drop takes the lock again.
            drop(visitors);
            return None;
        }
        here.count += 1;
        let strangers = Arc::clone(&here.strangers);
        drop(visitors);
        Some(Visitor {
            unnamed: self,
            address,
            strangers,
        })
    }
}

impl Visitor {
    /// Waits for room. `None` if there was none for [`DELAY_MAX`].
    pub(super) async fn come_in(self) -> Option<Stranger> {
        // The address first: whoever waits for its own crowd takes no room of others.
        let waiting = async {
            let of_address = Arc::clone(&self.strangers).acquire_owned().await.ok()?;
            let in_all = Arc::clone(&self.unnamed.inner.strangers)
                .acquire_owned()
                .await
                .ok()?;
            Some((in_all, of_address))
        };
        let (in_all, of_address) = timeout(DELAY_MAX, waiting).await.ok().flatten()?;
        Some(Stranger {
            _in_all: in_all,
            _of_address: of_address,
            _visitor: self,
        })
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        self.inner.visitors().count -= 1;
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut visitors = self.unnamed.inner.visitors();
        if let Some(here) = visitors.by_address.get_mut(&self.address) {
            here.count -= 1;
            if here.count == 0 {
                visitors.by_address.remove(&self.address);
            }
        }
    }
}

impl Inner {
    fn visitors(&self) -> MutexGuard<'_, Visitors> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address: in IPv6 a /64, of which a single machine commonly has all.
fn site_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << 64;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn past_its_share_an_address_waits_and_another_does_not() {
        let door = Door::default();
        let mut inside = Vec::new();
        for _ in 0..STRANGERS_PER_ADDRESS_MAX {
            inside.push(
                door.enter(address("192.0.2.1"))
                    .unwrap()
                    .come_in()
                    .await
                    .unwrap(),
            );
        }
        let next = tokio::spawn(door.enter(address("192.0.2.1")).unwrap().come_in());
        door.enter(address("192.0.2.2"))
            .unwrap()
            .come_in()
            .await
            .unwrap();
        assert!(!next.is_finished());
        inside.pop();
        assert!(next.await.unwrap().is_some());
    }

    #[test]
    fn an_address_that_fills_its_share_of_the_wait_leaves_room_for_others_and_nothing_behind() {
        let door = Door::default();
        let crowd: Vec<_> = (0..VISITORS_PER_ADDRESS_MAX)
            .map(|_| door.enter(address("192.0.2.1")).unwrap())
            .collect();
        assert!(door.enter(address("192.0.2.1")).is_none());
        assert!(door.enter(address("192.0.2.2")).is_some());
        drop(crowd);
        let visitors = door.inner.visitors();
        assert!(visitors.count == 0 && visitors.by_address.is_empty());
    }

    #[test]
    fn in_all_no_more_wait_than_there_are_descriptors_for() {
        let door = Door::default();
        let mut crowd = Vec::new();
        for host in 0..=u8::MAX {
            let site = IpAddr::from([192, 0, 2, host]);
            crowd.extend((0..VISITORS_MAX / 200).map_while(|_| door.enter(site)));
        }
        assert_eq!(crowd.len(), VISITORS_MAX);
    }

    #[test]
    fn the_addresses_of_one_machine_are_one() {
        let one = site_of(address("2001:db8:1:2::1"));
        assert_eq!(one, site_of(address("2001:db8:1:2:ffff::9")));
        assert_ne!(one, site_of(address("2001:db8:1:3::1")));
        assert_eq!(site_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
