use clap::Parser;

use super::*;
use crate::cli::{Arguments, Command};

fn request(words: &[&str]) -> Result<VerifyRequest, clap::Error> {
    let arguments = Arguments::try_parse_from([&["astacus-admin"], words].concat())?;
    match arguments.command {
        Command::Verify(asked) => Ok(asked.request().expect("it is about objects")),
        Command::Scrub(asked) => Ok(asked.request()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_are_understood_as_they_are_typed() {
    let asked =
        request(&["scrub", "--sample", "2.5%", "--max-bytes", "3M", "--max-time", "2h", "--max-rate", "1K"]);
    let limits = VerifyLimits {
        sample_ppm: Some(25_000),
        max_bytes: Some(3 << 20),
        max_time_ms: Some(7_200_000),
        max_rate: Some(1024),
    };
    assert_eq!(asked.unwrap(), VerifyRequest { limits, ..VerifyLevel::Read.into() });

    let asked = request(&["verify", "--level", "restore", "--snapshot", "latest"]).unwrap();
    assert_eq!(
        (asked.level, asked.snapshot),
        (VerifyLevel::Restore, None),
        "it is asked for when the server is"
    );
    assert_eq!(request(&["verify"]).unwrap(), VerifyRequest::from(VerifyLevel::Exists));
}

#[test]
fn odd_shares_and_times_are_refused() {
    for share in ["", "%", "0", "0%", "100.0001%", "101%", "-1%", "5.00001%", ".5", "5.", "a", "1e2"] {
        assert!(share.parse::<Share>().is_err(), "{share}");
    }
    assert_eq!(
        ["100%", "0.0001%", "5"].map(|text| text.parse()),
        [Ok(Share(1_000_000)), Ok(Share(1)), Ok(Share(50_000))]
    );
    for time in ["", "s", "0", "0m", "-1s", "1.5h", "5 m", "1w", "99999999999999999999s", "٣s"] {
        assert!(time.parse::<Time>().is_err(), "{time}");
    }
    assert_eq!("1d".parse(), Ok(Time(Duration::from_secs(86_400))));
}
