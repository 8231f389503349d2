//! The fake addresses: one for each name, never another's.
//!
//! Invariant: a name keeps its address and an address its name for the life of the table; it has
//! at most as many names as it was made for.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// 198.18.0.0/15, which is for tests of networks (RFC 2544) and so of no host on the internet.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// The interface's own address is the first; names begin behind it.
const SKIPPED: u32 = 2;
/// The last address of the range is left out.
const ROOM: u32 = (1 << 17) - SKIPPED - 1;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    names: Vec<String>,
    places: HashMap<String, u32>,
    most: usize,
}

impl Table {
    /// A table that begins with these names, and takes more up to the limit.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>, limit: u32) -> Self {
        let mut table = Self {
            names: Vec::new(),
            places: HashMap::new(),
            most: ROOM as usize,
        };
        for name in names {
            table.address(name);
        }
        table.most = table.names.len().max(limit.min(ROOM) as usize);
        table
    }

    /// The address of a name in canonical form; `None` if there are too many names.
    pub(crate) fn address(&mut self, name: &str) -> Option<Ipv4Addr> {
        if let Some(place) = self.places.get(name) {
            return Some(at(*place));
        }
        if self.names.len() >= self.most {
            return None;
        }
        let place = u32::try_from(self.names.len()).ok()?;
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        Some(at(place))
    }

    /// The name that was given this address.
    pub(crate) fn name(&self, address: Ipv4Addr) -> Option<&str> {
        let place = u32::from(address).checked_sub(FIRST + SKIPPED)?;
        let name = self.names.get(usize::try_from(place).ok()?)?;
        Some(name)
    }
}

fn at(place: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + SKIPPED + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address_and_there_are_only_so_many() {
        let mut table = Table::new(["a.test", "b.test"], 3);
        let a = table.address("a.test").unwrap();
        assert_eq!(a, Ipv4Addr::new(198, 18, 0, 2));
        assert_eq!(table.name(a), Some("a.test"));
        let c = table.address("c.test").unwrap();
        assert_eq!(table.address("c.test"), Some(c));
        assert_eq!(table.address("d.test"), None);
        assert_eq!(table.address("b.test"), Some(Ipv4Addr::new(198, 18, 0, 3)));
        for other in [
            "198.18.0.1",
            "198.18.0.0",
            "198.18.0.5",
            "198.19.255.255",
            "127.0.0.1",
            "0.0.0.0",
        ] {
            assert_eq!(table.name(other.parse().unwrap()), None, "{other}");
        }
        let mut full = Table::new([], u32::MAX);
        let mut last = None;
        for number in 0..ROOM + 10 {
            last = full.address(&number.to_string()).or(last);
        }
        assert_eq!(last, Some(Ipv4Addr::new(198, 19, 255, 254)));
    }
}
