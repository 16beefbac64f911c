//! Socket addresses in guest memory. See unix(7), ip(7), ipv6(7).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use abi::socket::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, UNIX_PATH_MAX};
use abi::{Errno, Result, UserAddr};
use netstack::unix::Address;

use crate::mm::{Mm, UserRef};

/// Bytes of `struct sockaddr_storage`: longer addresses are refused.
const STORAGE: usize = 128;
/// Bytes of the family in front of every address.
const FAMILY: usize = 2;

/// An address as the guest gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketAddress {
    /// `AF_UNSPEC`, or no bytes at all.
    Unspecified,
    /// `Unnamed` when there is nothing but the family.
    Unix(Address),
    Inet(SocketAddr),
    /// Any other family.
    Foreign(u16),
}

/// An address as sockets tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Unix(Address),
    Inet(SocketAddr),
}

/// Reads an address argument.
///
/// # Errors
/// `EINVAL` for a length out of bounds or a unix path that is too long, `EFAULT`.
pub fn read_address(mm: &Mm, at: UserAddr, length: i32) -> Result<SocketAddress> {
    let length = usize::try_from(length).map_err(|_| Errno::EINVAL)?;
    if length > STORAGE {
        return Err(Errno::EINVAL);
    }
    let mut buffer = [0; STORAGE];
    let bytes = &mut buffer[..length];
    mm.read(at, bytes)?;
    parse(bytes)
}

fn parse(bytes: &[u8]) -> Result<SocketAddress> {
    let Some((family, rest)) = bytes.split_first_chunk::<FAMILY>() else {
        return if bytes.is_empty() { Ok(SocketAddress::Unspecified) } else { Err(Errno::EINVAL) };
    };
    match u16::from_ne_bytes(*family) {
        AF_UNSPEC => Ok(SocketAddress::Unspecified),
        AF_UNIX if rest.len() > UNIX_PATH_MAX => Err(Errno::EINVAL),
        AF_UNIX => Ok(SocketAddress::Unix(match rest {
            [] => Address::Unnamed,
            [0, name @ ..] => Address::Abstract(name.to_vec()),
            path => {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                Address::Path(path[..end].to_vec())
            }
        })),
        AF_INET => {
            let (port, ip) = (field(rest, 0)?, field(rest, 2)?);
            let ip = Ipv4Addr::from_octets(ip);
            // Linux wants the padding to be there too.
            let _: [u8; 8] = field(rest, 6)?;
            Ok(SocketAddress::Inet(SocketAddr::from((ip, u16::from_be_bytes(port)))))
        }
        AF_INET6 => {
            let (port, flow, ip) = (field(rest, 0)?, field(rest, 2)?, field(rest, 6)?);
            let scope = u32::from_ne_bytes(field(rest, 22).unwrap_or_default());
            let ip = Ipv6Addr::from_octets(ip);
            let port = u16::from_be_bytes(port);
            let address = SocketAddrV6::new(ip, port, u32::from_be_bytes(flow), scope);
            Ok(SocketAddress::Inet(address.into()))
        }
        foreign => Ok(SocketAddress::Foreign(foreign)),
    }
}

/// Fixed-size bytes of an address; `EINVAL` when it is too short for them.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::EINVAL)
}

fn named_bytes(address: &Named) -> Vec<u8> {
    let inet = match address {
        Named::Unix(address) => return to_bytes(address),
        Named::Inet(address) => address,
    };
    let mut bytes = Vec::with_capacity(28);
    match inet {
        SocketAddr::V4(address) => {
            bytes.extend_from_slice(&AF_INET.to_ne_bytes());
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(address) => {
            bytes.extend_from_slice(&AF_INET6.to_ne_bytes());
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn to_bytes(address: &Address) -> Vec<u8> {
    let mut bytes = AF_UNIX.to_ne_bytes().to_vec();
    match address {
        Address::Unnamed => {}
        Address::Path(path) => {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        Address::Abstract(name) => {
            bytes.push(0);
            bytes.extend_from_slice(name);
        }
    }
    bytes
}

/// Writes as much of an address as the guest has room for, and its whole length. `None`: there is no address, and its
/// length is 0.
///
/// # Errors
/// `EINVAL` for a negative length, `EFAULT`.
pub fn write_address(
    mm: &Mm,
    address: Option<&Named>,
    at: UserAddr,
    length: UserRef<i32>,
) -> Result<()> {
    let room = usize::try_from(length.read(mm)?).map_err(|_| Errno::EINVAL)?;
    let bytes = address.map(named_bytes).unwrap_or_default();
    mm.write(at, &bytes[..bytes.len().min(room)])?;
    length.write(mm, &i32::try_from(bytes.len()).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(rest: &[u8]) -> Result<SocketAddress> {
        parse(&[&AF_UNIX.to_ne_bytes()[..], rest].concat())
    }

    #[test]
    fn unix_addresses_are_paths_abstract_or_nothing() {
        let path = SocketAddress::Unix(Address::Path(b"/tmp/s".to_vec()));
        assert_eq!(unix(b"/tmp/s"), Ok(path.clone()));
        assert_eq!(unix(b"/tmp/s\0garbage"), Ok(path));
        assert_eq!(unix(b"\0a\0b"), Ok(SocketAddress::Unix(Address::Abstract(b"a\0b".to_vec()))));
        assert_eq!(unix(b""), Ok(SocketAddress::Unix(Address::Unnamed)));
        assert_eq!(unix(&[b'x'; 109]), Err(Errno::EINVAL));
        assert_eq!(parse(&[1]), Err(Errno::EINVAL));
        assert_eq!(parse(&[2, 0, 0, 80]), Err(Errno::EINVAL));
        assert_eq!(parse(&[16, 0, 0, 80]), Ok(SocketAddress::Foreign(16)));
        assert_eq!(parse(&[0, 0]), Ok(SocketAddress::Unspecified));
    }

    #[test]
    fn internet_addresses_go_both_ways() {
        for text in ["127.0.0.1:80", "[::1]:65535", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = named_bytes(&Named::Inet(address));
            assert_eq!(parse(&bytes), Ok(SocketAddress::Inet(address)));
        }
    }

    #[test]
    fn addresses_are_told_as_linux_counts_them() {
        assert_eq!(to_bytes(&Address::Unnamed).len(), 2);
        assert_eq!(to_bytes(&Address::Path(b"/s".to_vec())).len(), 5);
        assert_eq!(to_bytes(&Address::Abstract(b"s".to_vec())).len(), 4);
    }
}
