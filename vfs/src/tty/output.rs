//! Output processing: `OPOST` and the column it keeps. See termios(3), "c_oflag".

use abi::termios::OutputFlags;

/// Where the cursor is, as far as it can be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Column(pub u32);

const TAB: u32 = 8;

/// True for the second and later bytes of a UTF-8 character.
pub const fn is_continuation(byte: u8, is_utf8: bool) -> bool {
    is_utf8 && byte & 0xc0 == 0x80
}

impl Column {
    /// Appends what `byte` becomes on its way to the terminal.
    pub fn put(&mut self, byte: u8, flags: OutputFlags, is_utf8: bool, out: &mut Vec<u8>) {
        if !flags.contains(OutputFlags::OPOST) {
            out.push(byte);
            return;
        }
        match byte {
            b'\n' if flags.contains(OutputFlags::ONLCR) => {
                self.0 = 0;
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => {
                if flags.contains(OutputFlags::ONLRET) {
                    self.0 = 0;
                }
                out.push(b'\n');
            }
            b'\r' if flags.contains(OutputFlags::ONOCR) && self.0 == 0 => {}
            b'\r' if flags.contains(OutputFlags::OCRNL) => {
                if flags.contains(OutputFlags::ONLRET) {
                    self.0 = 0;
                }
                out.push(b'\n');
            }
            b'\r' => {
                self.0 = 0;
                out.push(b'\r');
            }
            b'\t' => {
                let spaces = TAB - self.0 % TAB;
                self.0 = self.0.saturating_add(spaces);
                if flags.contains(OutputFlags::TABDLY) {
                    out.extend(std::iter::repeat_n(b' ', spaces as usize));
                } else {
                    out.push(b'\t');
                }
            }
            0x08 => {
                self.0 = self.0.saturating_sub(1);
                out.push(byte);
            }
            _ => {
                let is_control = byte.is_ascii_control();
                if !is_control && !is_continuation(byte, is_utf8) {
                    self.0 = self.0.saturating_add(1);
                }
                let is_upper = flags.contains(OutputFlags::OLCUC);
                out.push(if is_upper { byte.to_ascii_uppercase() } else { byte });
            }
        }
    }

    /// Columns that `byte` takes at this place when it is echoed.
    pub fn width(self, byte: u8, shows_control: bool, is_utf8: bool) -> u32 {
        match byte {
            b'\t' => TAB - self.0 % TAB,
            _ if byte.is_ascii_control() => {
                if shows_control {
                    2
                } else {
                    0
                }
            }
            _ if is_continuation(byte, is_utf8) => 0,
            _ => 1,
        }
    }
}
