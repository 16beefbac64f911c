//! What supervisor and sentry say to each other over the control socket: one message per datagram.
//!
//! | first byte | from | rest |
//! | --- | --- | --- |
//! | 0 | supervisor | nothing: the namespaces are set up, go ahead |
//! | 1 | supervisor | signal number: deliver it to the guest's first process |
//! | 2 | supervisor | rows, columns (u16 little endian): the terminal's new size |
//! | 16 | sentry | exit code: the guest's first process exited |
//! | 17 | sentry | signal number: it was killed |
//! | 18 | sentry | exit code, then one line of UTF-8: the sandbox failed |

use crate::config::Outcome;

/// Longest datagram; longer failure messages are cut.
pub const MAX_LEN: usize = 4096;

/// An order to the sentry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Go,
    Signal(u8),
    Resize { rows: u16, cols: u16 },
}

impl Order {
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Go => vec![0],
            Self::Signal(signal) => vec![1, signal],
            Self::Resize { rows, cols } => {
                let ([r0, r1], [c0, c1]) = (rows.to_le_bytes(), cols.to_le_bytes());
                vec![2, r0, r1, c0, c1]
            }
        }
    }

    /// `None` for what is no order.
    #[must_use]
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        match *datagram {
            [0] => Some(Self::Go),
            [1, signal] => Some(Self::Signal(signal)),
            [2, r0, r1, c0, c1] => Some(Self::Resize {
                rows: u16::from_le_bytes([r0, r1]),
                cols: u16::from_le_bytes([c0, c1]),
            }),
            _ => None,
        }
    }
}

/// The sentry's last word, for the supervisor.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Exited(code) => vec![16, *code],
        Outcome::Signaled(signal) => vec![17, *signal],
        Outcome::Failed { code, message } => {
            let mut datagram = vec![18, *code];
            datagram.extend_from_slice(message.as_bytes());
            datagram.truncate(MAX_LEN);
            datagram
        }
    }
}

/// `None` for what is no outcome. The sentry may be hostile: the message loses its control characters.
#[must_use]
pub fn decode_outcome(datagram: &[u8]) -> Option<Outcome> {
    match *datagram {
        [16, code] => Some(Outcome::Exited(code)),
        [17, signal] => Some(Outcome::Signaled(signal)),
        [18, code, ref message @ ..] => {
            let message = String::from_utf8_lossy(message);
            let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Some(Outcome::Failed { code, message })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_outcomes_survive_the_wire() {
        for order in [Order::Go, Order::Signal(15), Order::Resize { rows: 300, cols: 80 }] {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let failed = Outcome::Failed { code: 127, message: "nope: not found".into() };
        for outcome in [Outcome::Exited(3), Outcome::Signaled(9), failed] {
            assert_eq!(decode_outcome(&encode_outcome(&outcome)), Some(outcome));
        }
        assert_eq!(Order::decode(&[]), None);
        assert_eq!(decode_outcome(b"\x12"), None);
    }
}
