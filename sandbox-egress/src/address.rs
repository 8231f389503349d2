//! Which addresses a name may lead to.
//!
//! Must judge every address that is hidden in another, and never trust the name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Why an address is never dialled, or only where the rule allows private ones.
///
/// In the order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Of no network in particular.
    Public,
    /// RFC 1918, RFC 4193, RFC 6598: only where the rule says so.
    Private,
    /// Never, for this reason.
    Forbidden(&'static str),
}

/// Metadata services of clouds, apart from those that are link-local.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Returns the kind of an address, by its number alone.
pub(crate) fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return Kind::Forbidden("a metadata service");
    }
    match (a, b, c) {
        (0, ..) => Kind::Forbidden("this network (0.0.0.0/8)"),
        (127, ..) => Kind::Forbidden("the host's loopback"),
        (169, 254, _) => Kind::Forbidden("link-local, where metadata services are"),
        (192, 0, 0) => Kind::Forbidden("reserved (192.0.0.0/24)"),
        (192, 88, 99) => Kind::Forbidden("a 6to4 relay"),
        (198, 18 | 19, _) => Kind::Forbidden("the range of the sandbox's own addresses"),
        (224..=239, ..) => Kind::Forbidden("multicast"),
        (240..=255, ..) => Kind::Forbidden("reserved (240.0.0.0/4)"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let s = address.segments();
    if METADATA_V6.contains(&address) || s[..2] == [0xfd00, 0x0ec2] {
        return Kind::Forbidden("a metadata service");
    }
    if address.is_unspecified() || address.is_loopback() {
        return Kind::Forbidden("the host's loopback");
    }
    let low = Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    let six_to_four = Ipv4Addr::from((u32::from(s[1]) << 16) | u32::from(s[2]));
    match s {
        // IPv4-mapped, -compatible and -translated, NAT64's well-known prefix: what is inside counts.
        [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => kind_v4(low),
        [0x2002, ..] => kind_v4(six_to_four),
        // Where the IPv4 address stands depends on the prefix's length, which only its owner knows.
        [0x64, 0xff9b, 1, ..] => Kind::Forbidden("local NAT64"),
        [0x2001, 0, ..] => Kind::Forbidden("Teredo"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Kind::Forbidden("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Kind::Forbidden("site-local"),
        [first, ..] if first & 0xff00 == 0xff00 => Kind::Forbidden("multicast"),
        // ISATAP: an IPv4 address behind 0:5efe or 200:5efe, in any network.
        [first, _, _, _, 0 | 0x200, 0x5efe, ..] => network_v6(first).max(kind_v4(low)),
        [first, ..] => network_v6(first),
    }
}

/// Returns the kind of the network that begins with this number.
fn network_v6(first: u16) -> Kind {
    match first & 0xfe00 {
        0xfc00 => Kind::Private,
        _ => Kind::Public,
    }
}

/// Whether an address is one of this host's own: what is sent there comes from there. Nothing is
/// sent. Binding would not tell, where the host may bind addresses of others (`ip_nonlocal_bind`).
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

/// Why an address may not be dialled under a rule.
pub(crate) fn refused(address: IpAddr, private: bool) -> Option<&'static str> {
    match kind(address) {
        Kind::Forbidden(why) => Some(why),
        _ if is_own(address) => Some("one of the host's own addresses"),
        Kind::Private if !private => Some("private, which the rule does not allow"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Kind {
        kind(text.parse().unwrap())
    }

    #[test]
    fn public_addresses_pass() {
        for text in [
            "93.184.216.34",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "203.0.113.7",
            "2606:2800:220:1::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
            "2001:db8::1",
            "2001:4860:4860::8888",
        ] {
            assert_eq!(of(text), Kind::Public, "{text}");
        }
    }

    #[test]
    fn private_addresses_need_the_rule() {
        for text in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "fd12::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "2001:db8::5efe:10.0.0.1",
            "fd12::5efe:8.8.8.8",
            "fd12::200:5efe:8.8.8.8",
        ] {
            assert_eq!(of(text), Kind::Private, "{text}");
            let address = text.parse().unwrap();
            assert!(refused(address, false).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_never_reached_is_found_inside_other_addresses_too() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::200:5efe:127.0.0.1",
            "::ffff:168.63.129.16",
        ] {
            assert!(
                matches!(of(text), Kind::Forbidden(_)),
                "{text}: {:?}",
                of(text)
            );
            assert!(refused(text.parse().unwrap(), true).is_some(), "{text}");
        }
    }

    #[test]
    fn an_address_of_this_host_is_found() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("203.0.113.7".parse().unwrap()));
    }
}
