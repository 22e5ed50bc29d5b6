//! Room for strangers: so many in all, so many for each address, and a bounded number who wait.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use crate::core::crowd::Crowd;

/// Clients in a handshake at once; each may hold some tens of kilobytes and a verified signature's worth of work.
pub const STRANGERS_MAX: usize = 1024;
/// Of these, from one address. The rest of that address waits.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// Connections that are not yet proven, whether waiting or not; each holds a descriptor. Past that one goes for each that comes, of the
/// address of which most wait; see [`Crowd`].
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

#[derive(Debug)]
struct Visitors {
    crowd: Crowd,
    /// Tells those who wait that they have to go.
    to_tell: BTreeMap<u64, oneshot::Sender<()>>,
    /// The room for strangers of each address of which anybody is here.
    strangers: BTreeMap<IpAddr, Arc<Semaphore>>,
}

/// A connection of which it is not known yet whose it is: a load balancer is about to say. Gone when dropped.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Not here any more once it is named.
    inner: Option<Arc<Inner>>,
}

/// A connection at the door. Gone when dropped.
#[derive(Debug)]
pub(super) struct Visitor {
    inner: Arc<Inner>,
    address: IpAddr,
    number: u64,
    is_inside: bool,
    strangers: Arc<Semaphore>,
    sent_away: oneshot::Receiver<()>,
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
        Self::with_room_for(VISITORS_MAX, VISITORS_PER_ADDRESS_MAX)
    }
}

impl Door {
    fn with_room_for(visitors_max: usize, per_address_max: usize) -> Self {
        let visitors = Visitors {
            crowd: Crowd::new(visitors_max, per_address_max),
            to_tell: BTreeMap::new(),
            strangers: BTreeMap::new(),
        };
        let inner = Inner {
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            visitors: Mutex::new(visitors),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Lets a connection wait, unless too many do. It may take the place of one that waits in a larger crowd.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Visitor> {
        let address = site_of(address);
        let mut visitors = self.inner.visitors();
        let entry = visitors.crowd.enter(address)?;
        visitors.send_away(entry.sent_away);
        Some(visitors.visitor(&self.inner, address, entry.place))
    }

    /// Lets a connection say whose it is, unless too many wait. The same holds for its place.
    pub(super) fn knock(&self) -> Option<Unnamed> {
        let mut visitors = self.inner.visitors();
        let entry = visitors.crowd.knock()?;
        visitors.send_away(entry.sent_away);
        Some(Unnamed {
            inner: Some(Arc::clone(&self.inner)),
        })
    }
}

impl Visitors {
    fn send_away(&mut self, number: Option<u64>) {
        if let Some(sender) = number.and_then(|number| self.to_tell.remove(&number)) {
            // It may be going by itself.
            let _ = sender.send(());
        }
    }

    fn visitor(&mut self, inner: &Arc<Inner>, address: IpAddr, number: u64) -> Visitor {
        let (sender, sent_away) = oneshot::channel();
        self.to_tell.insert(number, sender);
        let strangers = self
            .strangers
            .entry(address)
            .or_insert_with(|| Arc::new(Semaphore::new(STRANGERS_PER_ADDRESS_MAX)));
        Visitor {
            inner: Arc::clone(inner),
            address,
            number,
            is_inside: false,
            strangers: Arc::clone(strangers),
            sent_away,
        }
    }
}

impl Unnamed {
    /// Lets it wait as one of its address, unless too many of that do.
    pub(super) fn named(mut self, address: IpAddr) -> Option<Visitor> {
        let address = site_of(address);
        let inner = Arc::clone(self.inner.as_ref()?);
        let mut visitors = inner.visitors();
        let number = visitors.crowd.name(address);
        let visitor = number.map(|number| visitors.visitor(&inner, address, number));
        drop(visitors);
        if visitor.is_some() {
            self.inner = None;
        }
        visitor
    }
}

impl Visitor {
    /// Waits for something, unless it has to go. Not to be called again when it had to.
    pub(super) async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = &mut self.sent_away => None,
            done = work => Some(done),
        }
    }

    /// Waits for room. `None` if there was none for [`DELAY_MAX`], or it has to make room itself.
    pub(super) async fn come_in(mut self) -> Option<Stranger> {
        let (of_address, in_all) = (
            Arc::clone(&self.strangers),
            Arc::clone(&self.inner.strangers),
        );
        // The address first: whoever waits for its own crowd takes no room of others.
        let waiting = async {
            let of_address = of_address.acquire_owned().await.ok()?;
            let in_all = in_all.acquire_owned().await.ok()?;
            Some((in_all, of_address))
        };
        let waited = timeout(DELAY_MAX, self.wait_for(waiting)).await;
        let (in_all, of_address) = waited.ok().flatten().flatten()?;
        let mut visitors = self.inner.visitors();
        self.is_inside = visitors.crowd.come_in(self.address, self.number);
        visitors.to_tell.remove(&self.number);
        drop(visitors);
        // It may have been sent away in this moment.
        self.is_inside.then(|| Stranger {
            _in_all: in_all,
            _of_address: of_address,
            _visitor: self,
        })
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            inner.visitors().crowd.leave_unnamed();
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut visitors = self.inner.visitors();
        visitors.to_tell.remove(&self.number);
        visitors
            .crowd
            .leave(self.address, self.number, self.is_inside);
        if !visitors.crowd.is_any_of(self.address) {
            visitors.strangers.remove(&self.address);
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
        assert!(visitors.crowd.count() == 0 && visitors.strangers.is_empty());
        assert!(visitors.to_tell.is_empty());
    }

    #[tokio::test]
    async fn of_a_full_door_the_last_of_the_largest_crowd_goes_for_one_of_a_smaller() {
        let door = Door::with_room_for(4, 3);
        let mut crowd: Vec<_> = (0..3)
            .map(|_| door.enter(address("192.0.2.1")).unwrap())
            .collect();
        let _other = door.enter(address("192.0.2.2")).unwrap();
        let newcomer = door.enter(address("192.0.2.3")).unwrap();
        let mut last = crowd.pop().unwrap();
        assert_eq!(last.wait_for(std::future::pending::<()>()).await, None);
        drop(last);
        assert!(newcomer.come_in().await.is_some());
        let behind_a_balancer = door.knock().unwrap();
        let last = crowd.pop().unwrap();
        assert!(last.come_in().await.is_some(), "there is room once more");
        assert!(behind_a_balancer.named(address("192.0.2.4")).is_some());
        drop(crowd);
        let visitors = door.inner.visitors();
        assert_eq!(visitors.crowd.count(), 1);
        assert!(visitors.strangers.len() == 1 && visitors.to_tell.len() == 1);
    }

    #[test]
    fn in_all_no_more_wait_than_there_are_descriptors_for() {
        let door = Door::default();
        let mut crowd = Vec::new();
        for host in 0..=u8::MAX {
            let site = IpAddr::from([192, 0, 2, host]);
            crowd.extend((0..VISITORS_MAX / 200).map_while(|_| door.enter(site)));
        }
        assert!(crowd.len() > VISITORS_MAX);
        let visitors = door.inner.visitors();
        assert_eq!(visitors.crowd.count(), VISITORS_MAX);
        assert_eq!(visitors.to_tell.len(), VISITORS_MAX);
        drop(visitors);
    }

    #[test]
    fn the_addresses_of_one_machine_are_one() {
        let one = site_of(address("2001:db8:1:2::1"));
        assert_eq!(one, site_of(address("2001:db8:1:2:ffff::9")));
        assert_ne!(one, site_of(address("2001:db8:1:3::1")));
        assert_eq!(site_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }
}
