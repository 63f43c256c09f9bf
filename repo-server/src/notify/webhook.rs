//! A notice posted to an address of this machine: one request of HTTP/1.1 over a connection of its own, signed.

use std::time::Duration;

use format_spec::notice::{Notice, SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Undelivered;
use crate::settings::Webhook;

/// Bytes of an answer that are read: its first line decides.
const ANSWER: u64 = 1024;

/// Posts the notice. Delivered means answered with a status of 200 to 299.
///
/// # Errors
/// [`Undelivered`] if there is no answer, not in time, or with another status.
pub(super) async fn post(
    webhook: &Webhook,
    within: Duration,
    notice: &Notice,
    unix_seconds: u64,
) -> Result<(), Undelivered> {
    let target = || format!("http://{}{}", webhook.authority, webhook.path);
    let request = request(webhook, notice, unix_seconds);
    let answered = tokio::time::timeout(within, exchange(&webhook.authority, &request)).await;
    let answer = answered
        .map_err(|_| Undelivered::TooLong { target: target(), within })?
        .map_err(|source| Undelivered::Io { target: target(), source })?;
    let line = answer.lines().next().unwrap_or_default();
    match line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(Undelivered::Failed { target: target(), what: format!("answered `{line}`") }),
    }
}

fn request(webhook: &Webhook, notice: &Notice, unix_seconds: u64) -> Vec<u8> {
    let body = serde_json::to_vec(notice).expect("plain JSON");
    let signature = signature(&webhook.secret.0, unix_seconds, &body);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         {TIMESTAMP_HEADER}: {unix_seconds}\r\n{SIGNATURE_HEADER}: {signature}\r\nConnection: close\r\n\r\n",
        webhook.path,
        webhook.authority,
        body.len()
    );
    [head.into_bytes(), body].concat()
}

async fn exchange(authority: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    // The end of the first line is enough.
    while !answer.contains(&b'\n') {
        let room = ANSWER.saturating_sub(u64::try_from(answer.len()).unwrap_or(ANSWER));
        let mut rest = (&mut stream).take(room);
        if rest.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
