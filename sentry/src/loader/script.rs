//! `#!` scripts: the first line, parsed as Linux does (fs/binfmt_script.c).

/// Bytes of a file that decide its format (`BINPRM_BUF_SIZE`).
pub const HEAD_BYTES: usize = 256;

/// What the first line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub interpreter: Vec<u8>,
    /// All of the rest of the line, at most one argument.
    pub argument: Option<Vec<u8>>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Parses the head of a file; `None` when it is no script that Linux would run. `head` is zero-padded to
/// [`HEAD_BYTES`] as the kernel's buffer is.
#[must_use]
pub fn parse(head: &[u8; HEAD_BYTES]) -> Option<Script> {
    let line = head.strip_prefix(b"#!")?;
    let newline = line.iter().position(|byte| *byte == b'\n');
    // Without a newline the last byte of the buffer is left out, and the interpreter's name must have ended before
    // it: else it may be cut.
    let line = match newline {
        Some(end) => line.get(..end)?,
        None => {
            let line = line.get(..line.len() - 1)?;
            let name = line.iter().position(|byte| !is_blank(*byte))?;
            line.get(name..)?.iter().position(|byte| is_blank(*byte) || *byte == 0)?;
            line
        }
    };
    let end = line.iter().rposition(|byte| !is_blank(*byte))? + 1;
    let line = line.get(..end)?;
    let name_at = line.iter().position(|byte| !is_blank(*byte))?;
    let rest = line.get(name_at..)?;
    let name_len = rest.iter().position(|byte| is_blank(*byte) || *byte == 0).unwrap_or(rest.len());
    let interpreter = rest.get(..name_len)?;
    if interpreter.is_empty() {
        return None;
    }
    let argument = match rest.get(name_len) {
        Some(0) | None => None,
        Some(_) => {
            let tail = rest.get(name_len..)?;
            let at = tail.iter().position(|byte| !is_blank(*byte));
            at.and_then(|at| tail.get(at..)).map(until_nul).filter(|arg| !arg.is_empty())
        }
    };
    Some(Script { interpreter: interpreter.to_vec(), argument })
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.iter().take(end).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Option<(String, Option<String>)> {
        let mut head = [0; HEAD_BYTES];
        let len = text.len().min(HEAD_BYTES);
        head[..len].copy_from_slice(&text[..len]);
        let script = parse(&head)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Some((text(script.interpreter), script.argument.map(text)))
    }

    #[test]
    fn takes_one_argument_with_its_inner_blanks() {
        assert_eq!(parsed(b"#!/bin/sh\n"), Some(("/bin/sh".into(), None)));
        let long = parsed(b"#! /usr/bin/env  -S python3 -u \t\nrest");
        assert_eq!(long, Some(("/usr/bin/env".into(), Some("-S python3 -u".into()))));
        assert_eq!(parsed(b"#!/bin/sh"), Some(("/bin/sh".into(), None)));
    }

    #[test]
    fn refuses_what_is_no_script_or_cut() {
        assert_eq!(parsed(b"#!\n"), None);
        assert_eq!(parsed(b"#!   \n/bin/sh"), None);
        assert_eq!(parsed(b"echo"), None);
        let mut cut = b"#!/".to_vec();
        cut.resize(400, b'x');
        assert_eq!(parsed(&cut), None);
        let mut cut_argument = b"#!/bin/sh ".to_vec();
        cut_argument.resize(400, b'x');
        assert_eq!(parsed(&cut_argument).map(|(name, _)| name), Some("/bin/sh".into()));
    }
}
