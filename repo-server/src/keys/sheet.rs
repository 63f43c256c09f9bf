//! A recovery sheet: a key on paper, and how to use it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use format_spec::SlotName;
use format_spec::descriptor::Descriptor;
use format_spec::paper::PaperKey;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use zeroize::Zeroizing;

use super::KeyError;

use crate::durable::{self, FileName, RealDisk};
use crate::time::timestamp;

/// The place that a sheet is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Screen,
    /// A new file, mode 0600. A file that exists with other content is not replaced.
    File(PathBuf),
}

/// The text of a sheet, wiped when dropped.
pub struct Sheet(Zeroizing<String>);

impl Sheet {
    /// The sheet of the master key.
    pub(super) fn of_master(descriptor: &Descriptor, key: &PaperKey, unix_ms: u64) -> Self {
        let use_it = "\
This sheet alone opens the repository: whoever has it and a copy of the site can read everything.
Print it, keep it in a safe, and delete the file. Check what you typed or scanned, which changes nothing:
  astacus-admin key check --data-dir DIR --paper FILE
Make `master.key` again in a data folder that lost it:
  astacus-admin key restore --data-dir DIR --paper FILE
If the whole data folder is lost, make an empty one, add `--site URL` to both commands, and then run
  astacus-admin rebuild --data-dir DIR --from-site URL --keyring DIR/master.key";
        Self::new(descriptor, key, unix_ms, "the master key", use_it)
    }

    /// The sheet of the recovery key that opens `slot`.
    pub(super) fn of_slot(descriptor: &Descriptor, key: &PaperKey, unix_ms: u64, slot: &SlotName) -> Self {
        let use_it = "\
This sheet opens the repository only together with a copy of `keyring.json` of the data folder: keep one
elsewhere. Print this sheet, keep it in a safe, and delete the file. It is not shown again. Check what you
typed or scanned, which changes nothing:
  astacus-admin key check --data-dir DIR --paper FILE
Make `master.key` again in a data folder that has `keyring.json`:
  astacus-admin key restore --data-dir DIR --paper FILE
A sheet that is lost becomes useless with `astacus-admin key remove`, as long as nobody has both.";
        Self::new(descriptor, key, unix_ms, &format!("the key of slot `{slot}`"), use_it)
    }

    fn new(descriptor: &Descriptor, key: &PaperKey, unix_ms: u64, carries: &str, use_it: &str) -> Self {
        let lines = key.to_lines();
        let Descriptor { repository, master_key_fingerprint, .. } = descriptor;
        let short = master_key_fingerprint.get(..16).unwrap_or(master_key_fingerprint);
        // The capacity is never exceeded, so that no copy is left behind by a text that grew.
        let mut text = Zeroizing::new(String::with_capacity(16 << 10));
        let made = timestamp(unix_ms).strftime("%Y-%m-%d");
        let _ = write!(
            text,
            "ASTACUS RECOVERY SHEET\n\n\
             Repository   {repository}\n\
             Fingerprint  {short}\n\
             Made on      {made} (UTC)\n\
             Carries      {carries}\n\n\
             {}\n\
             Each line starts with its number and ends with two letters that check it. There is no letter O, I, L\n\
             or U: what looks like one is a digit 0 or 1, or a V. Small letters and missing spaces do not matter.\n\n\
             {use_it}\n\n",
            lines.as_str(),
        );
        if let Some(code) = qr(&lines) {
            let _ = writeln!(text, "The same eight lines as a QR code:\n\n{}", code.as_str());
        }
        Self(text)
    }

    /// The text of the sheet.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Writes the sheet, to a file durably.
    ///
    /// # Errors
    /// [`KeyError::Output`], [`KeyError::Write`].
    pub(super) fn write(&self, to: &Destination) -> Result<(), KeyError> {
        match to {
            Destination::Screen => {
                let mut out = std::io::stdout().lock();
                out.write_all(self.0.as_bytes()).and_then(|()| out.flush()).map_err(KeyError::Output)
            }
            Destination::File(path) => {
                let (dir, file) = split(path)?;
                durable::publish(&RealDisk, dir, &file, self.0.as_bytes())?;
                Ok(())
            }
        }
    }
}

/// The folder and the name of a file.
fn split(path: &Path) -> Result<(&Path, FileName), KeyError> {
    let file = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.parse().ok());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let no_name = || KeyError::NoFile { path: path.to_owned() };
    Ok((dir.unwrap_or(Path::new(".")), file.ok_or_else(no_name)?))
}

/// A QR code in text, two rows of it in each line.
fn qr(lines: &str) -> Option<Zeroizing<String>> {
    let code = QrCode::new(lines.as_bytes()).ok()?;
    // Printed marks are the dark squares, as on paper. On a dark terminal the code is inverted, and not every scanner
    // reads that.
    Some(Zeroizing::new(code.render::<Dense1x2>().quiet_zone(true).build()))
}
