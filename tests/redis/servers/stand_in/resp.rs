//! RESP, read from one connection to be written to another.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A command as a client sent it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    words: Vec<String>,
    /// As it came, because not every word is text.
    bytes: Vec<u8>,
}

impl Command {
    /// `None` when the client has closed the connection.
    pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Option<Self> {
        let mut command = Self::default();
        let count = command.number(from, b'*').await.ok()?;
        for _ in 0..count {
            let length = command.number(from, b'$').await.ok()?;
            let start = command.bytes.len();
            take(from, length + 2, &mut command.bytes).await.ok()?;
            let word = &command.bytes[start..start + length];
            command.words.push(String::from_utf8_lossy(word).into_owned());
        }
        Some(command)
    }

    async fn number(
        &mut self,
        from: &mut (impl AsyncBufRead + Unpin),
        kind: u8,
    ) -> Result<usize, Error> {
        let line = line(from, &mut self.bytes).await?;
        assert_eq!(line.as_bytes()[0], kind, "a client sends arrays of strings: {line:?}");
        Ok(line[1..].parse().unwrap())
    }

    pub(super) fn of(words: &[&str]) -> Self {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes += &format!("${}\r\n{word}\r\n", word.len());
        }
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { words, bytes: bytes.into_bytes() }
    }

    /// The same with another word there. All words have to be text.
    pub(super) fn with_word(&self, at: usize, word: &str) -> Self {
        let mut words: Vec<_> = self.words.iter().map(String::as_str).collect();
        words[at] = word;
        Self::of(&words)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.words.first().is_some_and(|word| word.eq_ignore_ascii_case(name))
    }

    /// Whether it calls a script, by its text or its hash.
    pub(crate) fn is_script(&self) -> bool {
        self.is("EVAL") || self.is("EVALSHA")
    }
}

/// Reads one answer, whole, as it comes.
pub(super) async fn answer(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<u8>, Error> {
    let (mut bytes, mut missing) = (Vec::new(), 1);
    while missing > 0 {
        missing -= 1;
        let line = line(from, &mut bytes).await?;
        // The length of something that is null is -1.
        let length = || line[1..].parse().unwrap_or(0);
        match line.as_bytes()[0] {
            b'*' | b'~' | b'>' => missing += length(),
            b'%' => missing += 2 * length(),
            b'|' => missing += 2 * length() + 1,
            b'$' | b'=' | b'!' if !line.starts_with("$-") => {
                take(from, length() + 2, &mut bytes).await?;
            }
            _ => {}
        }
    }
    Ok(bytes)
}

/// The line without its end. `bytes` gets it with its end.
async fn line(
    from: &mut (impl AsyncBufRead + Unpin),
    bytes: &mut Vec<u8>,
) -> Result<String, Error> {
    let start = bytes.len();
    from.read_until(b'\n', bytes).await?;
    let line = bytes[start..].strip_suffix(b"\r\n").filter(|line| !line.is_empty());
    let line = line.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    Ok(String::from_utf8_lossy(line).into_owned())
}

async fn take(
    from: &mut (impl AsyncBufRead + Unpin),
    length: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = bytes.len();
    bytes.resize(start + length, 0);
    from.read_exact(&mut bytes[start..]).await.map(drop)
}
