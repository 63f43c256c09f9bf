//! A 256-bit secret as lines that a person can type from paper.
//!
//! ```text
//! 1: 040M 00G2 0R  G7
//! ```
//! A sheet has eight lines. A line has its number, eight symbols that carry five bytes, and two symbols that check
//! the line. The forty bytes are a version, a kind, the secret, and six bytes that check all of it. Symbols are
//! those of Crockford's base 32: digits and capital letters without I, L, O and U. A reader takes small letters,
//! `O` for `0`, and `I` and `L` for `1`.
//!
//! The two checks of a line are weighted sums over GF(32), so that any one or two changed symbols of a line are
//! found, and also two lines that changed places, since the number of the line is part of the sum.

use std::fmt;
use std::fmt::Write;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{MasterKey, RecoveryKey, Secret};

/// Lines of a sheet.
pub const LINES: usize = 8;
/// Symbols of a line, with its checks.
pub const SYMBOLS: usize = DATA_SYMBOLS + 2;

const DATA_SYMBOLS: usize = 8;
const LINE_BYTES: usize = 5;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const VERSION: u8 = 1;
const CHECK: &str = "astacus v1 2026 paper check";
const CHECK_LEN: usize = 6;

/// Why typed lines are not a key. Line numbers start at 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum PaperError {
    /// A line is missing.
    #[error(
        "line {line} of the sheet is missing: each of the {LINES} lines starts with its number and a colon"
    )]
    Missing { line: usize },
    /// Two lines have the same number.
    #[error("line {line} of the sheet is there twice")]
    Twice { line: usize },
    /// A line number that no sheet has.
    #[error("the sheet has a line {line}, but a sheet has {LINES} lines")]
    TooMany { line: usize },
    /// A line is too short or too long.
    #[error("line {line} of the sheet has {found} symbols, and must have {SYMBOLS}")]
    Length { line: usize, found: usize },
    /// A symbol that no sheet has.
    #[error("line {line} of the sheet has the symbol `{}`, which is not used on sheets", symbol.escape_debug())]
    Symbol { line: usize, symbol: char },
    /// The checks of a line do not fit.
    #[error("line {line} of the sheet has a mistake: compare it with the paper")]
    Check { line: usize },
    /// Every line is right, but they are not of one sheet.
    #[error("the lines are not of one sheet")]
    Mixed,
    /// The sheet is of a newer format.
    #[error("the sheet has version {found}, but this program reads version {VERSION}")]
    Version { found: u8 },
    /// The sheet carries another kind of key than this program knows.
    #[error("the sheet carries an unknown kind of key ({found})")]
    Kind { found: u8 },
}

/// The key that a sheet carries.
#[derive(Clone)]
pub enum PaperKey {
    /// The master key itself.
    Master(MasterKey),
    /// A key that opens one slot of the keyring.
    Recovery(RecoveryKey),
}

impl fmt::Debug for PaperKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master(_) => "PaperKey::Master(..)",
            Self::Recovery(_) => "PaperKey::Recovery(..)",
        })
    }
}

impl PaperKey {
    fn code(&self) -> u8 {
        match self {
            Self::Master(_) => 1,
            Self::Recovery(_) => 2,
        }
    }

    fn bytes(&self) -> &[u8; 32] {
        match self {
            Self::Master(key) => key.bytes(),
            Self::Recovery(key) => key.bytes(),
        }
    }

    /// The lines of the sheet, in groups, each ended by a line feed.
    pub fn to_lines(&self) -> Zeroizing<String> {
        let payload = Payload::of(self);
        // The capacity is never exceeded, so that no copy is left behind by a text that grew.
        let mut text = Zeroizing::new(String::with_capacity(LINES * 20));
        for (number, bytes) in (1..).zip(payload.0.chunks_exact(LINE_BYTES)) {
            let line = Line::of(number, bytes);
            let _ = write!(text, "{number}: ");
            for (place, symbol) in line.0.iter().enumerate() {
                text.push_str(if place > 0 && place % 4 == 0 { " " } else { "" });
                text.push(letter(*symbol));
            }
            text.push('\n');
        }
        text
    }

    /// The key on a typed, printed or scanned sheet. Lines that do not start with a number and a colon are skipped.
    ///
    /// # Errors
    /// [`PaperError`], which names the first wrong line.
    pub fn parse(text: &str) -> Result<Self, PaperError> {
        let mut lines: [Option<Line>; LINES] = Default::default();
        for (line, symbols) in text.lines().filter_map(numbered) {
            let place = line.checked_sub(1).and_then(|index| lines.get_mut(index));
            let place = place.ok_or(PaperError::TooMany { line })?;
            if place.is_some() {
                return Err(PaperError::Twice { line });
            }
            *place = Some(Line::parse(line, symbols)?);
        }
        let mut payload = Payload([0; LINES * LINE_BYTES]);
        for ((index, line), bytes) in lines.iter().enumerate().zip(payload.0.chunks_exact_mut(LINE_BYTES)) {
            line.as_ref().ok_or(PaperError::Missing { line: index + 1 })?.put(bytes);
        }
        payload.key()
    }
}

/// The forty bytes of a sheet.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Payload([u8; LINES * LINE_BYTES]);

impl Payload {
    fn of(key: &PaperKey) -> Self {
        let head = [VERSION, key.code()];
        let check = check_of(head, key.bytes());
        let mut payload = Self([0; LINES * LINE_BYTES]);
        let from = head.iter().chain(key.bytes()).chain(&check);
        payload.0.iter_mut().zip(from).for_each(|(byte, from)| *byte = *from);
        payload
    }

    fn key(&self) -> Result<PaperKey, PaperError> {
        let [version, kind, rest @ ..] = &self.0;
        let (secret, check) = rest.split_first_chunk::<32>().ok_or(PaperError::Mixed)?;
        if check_of([*version, *kind], secret) != check {
            return Err(PaperError::Mixed);
        }
        if *version != VERSION {
            return Err(PaperError::Version { found: *version });
        }
        match kind {
            1 => Ok(PaperKey::Master(MasterKey::from_bytes(*secret))),
            2 => Ok(PaperKey::Recovery(RecoveryKey::from_bytes(*secret))),
            &found => Err(PaperError::Kind { found }),
        }
    }
}

fn check_of(head: [u8; 2], secret: &[u8; 32]) -> [u8; CHECK_LEN] {
    let whole = Secret::derive(CHECK, &[&head, secret]);
    let mut check = [0; CHECK_LEN];
    check.iter_mut().zip(whole.bytes()).for_each(|(byte, from)| *byte = *from);
    check
}

/// The symbols of one line, as numbers below 32.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
struct Line([u8; SYMBOLS]);

impl Line {
    fn of(number: usize, bytes: &[u8]) -> Self {
        let whole = bytes.iter().fold(0_u64, |whole, byte| whole << 8 | u64::from(*byte));
        let mut line = Self::default();
        let (data, checks) = line.0.split_at_mut(DATA_SYMBOLS);
        for (symbol, shift) in data.iter_mut().zip((0..DATA_SYMBOLS).rev()) {
            *symbol = u8::try_from(whole >> (5 * shift) & 31).expect("five bits");
        }
        checks.copy_from_slice(&checks_of(number, data));
        line
    }

    fn parse(number: usize, symbols: &str) -> Result<Self, PaperError> {
        let mut line = Self::default();
        let mut found = 0;
        for symbol in symbols.chars().filter(|symbol| !symbol.is_whitespace() && *symbol != '-') {
            let value = value(symbol).ok_or(PaperError::Symbol { line: number, symbol })?;
            if let Some(place) = line.0.get_mut(found) {
                *place = value;
            }
            found += 1;
        }
        if found != SYMBOLS {
            return Err(PaperError::Length { line: number, found });
        }
        let (data, checks) = line.0.split_at(DATA_SYMBOLS);
        if checks_of(number, data) == checks { Ok(line) } else { Err(PaperError::Check { line: number }) }
    }

    fn put(&self, bytes: &mut [u8]) {
        let data = self.0.iter().take(DATA_SYMBOLS);
        let whole = data.fold(0_u64, |whole, symbol| whole << 5 | u64::from(*symbol));
        let [_, _, _, five @ ..] = whole.to_be_bytes();
        bytes.copy_from_slice(&five);
    }
}

/// The number before the first colon of a line of a sheet, and what stands behind it.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let (number, symbols) = line.trim_start().split_once(':')?;
    Some((number.trim_end().parse().ok()?, symbols))
}

/// The two checks: sums of the symbols, the number of the line first, weighted with the powers of two and of four in
/// GF(32). Any two columns of the weights are independent, so a change of one or two symbols changes a check.
fn checks_of(number: usize, data: &[u8]) -> [u8; 2] {
    let number = u8::try_from(number).expect("at most eight lines");
    let mut checks = [0; 2];
    for symbol in std::iter::once(&number).chain(data) {
        // Horner's rule: each step multiplies what is summed so far.
        checks = [double(checks[0] ^ symbol), double(double(checks[1] ^ symbol))];
    }
    checks
}

/// Twice a number of GF(32), whose polynomial is x⁵ + x² + 1.
fn double(number: u8) -> u8 {
    let doubled = number << 1;
    if doubled & 32 == 0 { doubled } else { (doubled ^ 0b10_0101) & 31 }
}

fn letter(symbol: u8) -> char {
    ALPHABET.get(usize::from(symbol)).copied().map_or('?', char::from)
}

fn value(symbol: char) -> Option<u8> {
    let symbol = match symbol.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let found = ALPHABET.iter().position(|letter| char::from(*letter) == symbol)?;
    u8::try_from(found).ok()
}

#[cfg(test)]
mod tests;
