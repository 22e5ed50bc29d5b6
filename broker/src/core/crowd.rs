//! Who is at the door: so many in all, so many of each address; and who has to go when there is no more room.
//!
//! Whoever fills the door must not shut it for others. So a newcomer of an address of which fewer wait takes the place of one who
//! waits among the most: of these the last, since the first have waited longest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Everyone at the door. Each has a number, in the order in which they came.
#[derive(Clone, Debug)]
pub struct Crowd {
    max: usize,
    per_address_max: usize,
    count: usize,
    last: u64,
    by_address: BTreeMap<IpAddr, Here>,
    /// How many wait of each address, so that the most crowded is found at once.
    by_size: BTreeSet<(usize, IpAddr)>,
}

/// Those of one address. Forgotten when there are none.
#[derive(Clone, Debug, Default)]
struct Here {
    waiting: BTreeSet<u64>,
    inside: usize,
}

/// A newcomer has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What it has.
    pub place: T,
    /// Whose place that was: it is to be told to go, and counts no more.
    pub sent_away: Option<u64>,
}

impl Crowd {
    /// Nobody yet; at most so many, and so many of each address.
    #[must_use]
    pub const fn new(max: usize, per_address_max: usize) -> Self {
        Self {
            max,
            per_address_max,
            count: 0,
            last: 0,
            by_address: BTreeMap::new(),
            by_size: BTreeSet::new(),
        }
    }

    /// Somebody of this address comes: its number, if there is a place for it.
    pub fn enter(&mut self, address: IpAddr) -> Option<Entry<u64>> {
        let here = self.by_address.get(&address);
        let (waiting, all) = here.map_or((0, 0), |here| (here.waiting.len(), here.all()));
        if all >= self.per_address_max {
            return None;
        }
        let Entry { sent_away, .. } = self.make_room(waiting)?;
        Some(Entry {
            place: self.wait(address),
            sent_away,
        })
    }

    /// Somebody comes who is yet to say of which address.
    pub fn knock(&mut self) -> Option<Entry<()>> {
        self.make_room(0)
    }

    /// Somebody who knocked is of this address: its number; none if too many are of it. It has its place until it leaves.
    pub fn name(&mut self, address: IpAddr) -> Option<u64> {
        let here = self.by_address.get(&address);
        if here.is_some_and(|here| here.all() >= self.per_address_max) {
            return None;
        }
        Some(self.wait(address))
    }

    /// Somebody who knocked is gone.
    pub const fn leave_unnamed(&mut self) {
        self.count -= 1;
    }

    /// Somebody who waited is let in, and cannot be sent away any more. False if it already was.
    pub fn come_in(&mut self, address: IpAddr, number: u64) -> bool {
        self.change(address, |here| {
            let is_here = here.waiting.remove(&number);
            here.inside += usize::from(is_here);
            is_here
        })
    }

    /// Somebody is gone, from where it waited or from inside. Nothing changes for one that was sent away.
    pub fn leave(&mut self, address: IpAddr, number: u64, is_inside: bool) {
        let is_gone = self.change(address, |here| {
            if is_inside {
                here.inside -= 1;
            }
            is_inside || here.waiting.remove(&number)
        });
        self.count -= usize::from(is_gone);
    }

    /// Whether anybody is of this address.
    #[must_use]
    pub fn is_any_of(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Takes a place for one more, of whose address so many wait. Nobody goes for one whose own crowd would then be as large.
    fn make_room(&mut self, waiting: usize) -> Option<Entry<()>> {
        let mut sent_away = None;
        if self.count >= self.max {
            let (most, address) = *self.by_size.last()?;
            if most <= waiting + 1 {
                return None;
            }
            sent_away = self.change(address, |here| here.waiting.pop_last());
            self.count -= 1;
        }
        self.count += 1;
        Some(Entry {
            place: (),
            sent_away,
        })
    }

    fn wait(&mut self, address: IpAddr) -> u64 {
        self.last += 1;
        let number = self.last;
        self.change(address, |here| here.waiting.insert(number));
        number
    }

    /// Changes what is of an address, and keeps both maps true.
    fn change<T>(&mut self, address: IpAddr, change: impl FnOnce(&mut Here) -> T) -> T {
        let here = self.by_address.entry(address).or_default();
        self.by_size.remove(&(here.waiting.len(), address));
        let changed = change(here);
        if !here.waiting.is_empty() {
            self.by_size.insert((here.waiting.len(), address));
        }
        if here.all() == 0 {
            self.by_address.remove(&address);
        }
        changed
    }
}

impl Here {
    fn all(&self) -> usize {
        self.waiting.len() + self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3;
    const PER_ADDRESS_MAX: usize = 2;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A crowd, and what is true of it, told in the plainest way.
    #[derive(Clone)]
    struct World {
        crowd: Crowd,
        /// Number, address, whether it is inside.
        people: Vec<(u64, u8, bool)>,
        unnamed: usize,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u8),
        Knock,
        Name(u8),
        LeaveUnnamed,
        ComeIn(usize),
        Leave(usize),
    }

    impl World {
        fn waiting(&self, of: u8) -> usize {
            let of_it = |person: &&(u64, u8, bool)| person.1 == of && !person.2;
            self.people.iter().filter(of_it).count()
        }

        fn all(&self, of: u8) -> usize {
            self.people.iter().filter(|person| person.1 == of).count()
        }

        /// Who has to go for a newcomer of whose address so many wait.
        fn expected(&self, waiting: usize) -> Result<Option<u64>, ()> {
            if self.people.len() + self.unnamed < MAX {
                return Ok(None);
            }
            let most = (0..3).map(|of| self.waiting(of)).max().unwrap_or(0);
            if most <= waiting + 1 {
                return Err(());
            }
            let most_crowded = |person: &&(u64, u8, bool)| {
                let (_, of, is_inside) = **person;
                !is_inside && self.waiting(of) == most
            };
            // With so few, there is but one such address.
            Ok(self.people.iter().filter(most_crowded).map(|p| p.0).max())
        }

        fn check_entry<T>(&mut self, entry: Option<Entry<T>>, expected: Result<Option<u64>, ()>) {
            assert_eq!(entry.map(|entry| entry.sent_away).ok_or(()), expected);
            if let Ok(Some(gone)) = expected {
                self.people.retain(|person| person.0 != gone);
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Enter(of) => {
                    let expected = if self.all(of) < PER_ADDRESS_MAX {
                        self.expected(self.waiting(of))
                    } else {
                        Err(())
                    };
                    let entry = self.crowd.enter(address(of));
                    let place = entry.map(|entry| entry.place);
                    self.check_entry(entry, expected);
                    self.people.extend(place.map(|number| (number, of, false)));
                }
                Step::Knock => {
                    let expected = self.expected(0);
                    let entry = self.crowd.knock();
                    self.unnamed += usize::from(entry.is_some());
                    self.check_entry(entry, expected);
                }
                Step::Name(of) => {
                    let number = self.crowd.name(address(of));
                    assert_eq!(number.is_some(), self.all(of) < PER_ADDRESS_MAX);
                    self.unnamed -= usize::from(number.is_some());
                    self.people.extend(number.map(|number| (number, of, false)));
                }
                Step::LeaveUnnamed => {
                    self.crowd.leave_unnamed();
                    self.unnamed -= 1;
                }
                Step::ComeIn(at) => {
                    let (number, of, is_inside) = &mut self.people[at];
                    assert!(self.crowd.come_in(address(*of), *number));
                    *is_inside = true;
                }
                Step::Leave(at) => {
                    let (number, of, is_inside) = self.people.remove(at);
                    self.crowd.leave(address(of), number, is_inside);
                }
            }
        }

        fn steps(&self) -> Vec<Step> {
            let mut steps: Vec<_> = (0..3).map(Step::Enter).collect();
            steps.push(Step::Knock);
            if self.unnamed > 0 {
                steps.extend((0..2).map(Step::Name));
                steps.push(Step::LeaveUnnamed);
            }
            for (at, (_, _, is_inside)) in self.people.iter().enumerate() {
                steps.push(Step::Leave(at));
                if !is_inside {
                    steps.push(Step::ComeIn(at));
                }
            }
            steps
        }

        fn check(&self) {
            assert_eq!(self.crowd.count(), self.people.len() + self.unnamed);
            assert!(self.crowd.count() <= MAX);
            for of in 0..3 {
                assert!(self.all(of) <= PER_ADDRESS_MAX);
                assert_eq!(self.crowd.is_any_of(address(of)), self.all(of) > 0);
            }
            let sizes = (0..3).map(|of| (self.waiting(of), address(of)));
            let sizes: BTreeSet<_> = sizes.filter(|(size, _)| *size > 0).collect();
            assert_eq!(self.crowd.by_size, sizes);
        }
    }

    fn explore(world: &World, depth: usize, seen: &mut usize) {
        world.check();
        *seen += 1;
        if depth > 0 {
            for step in world.steps() {
                let mut next = world.clone();
                next.step(step);
                explore(&next, depth - 1, seen);
            }
        }
    }

    #[test]
    fn in_every_small_crowd_the_last_of_the_most_crowded_makes_room_and_nobody_else() {
        let world = World {
            crowd: Crowd::new(MAX, PER_ADDRESS_MAX),
            people: Vec::new(),
            unnamed: 0,
        };
        let mut seen = 0;
        explore(&world, 6, &mut seen);
        assert!(seen > 100_000, "{seen}");
    }

    #[test]
    fn one_that_was_sent_away_neither_comes_in_nor_leaves_again() {
        let mut crowd = Crowd::new(2, 2);
        crowd.enter(address(1)).unwrap();
        let second = crowd.enter(address(1)).unwrap().place;
        let entry = crowd.enter(address(2)).unwrap();
        assert_eq!(entry.sent_away, Some(second));
        assert!(!crowd.come_in(address(1), second));
        crowd.leave(address(1), second, false);
        assert_eq!(crowd.count(), 2);
        assert_eq!(crowd.enter(address(3)), None, "nobody waits in a crowd");
    }
}
