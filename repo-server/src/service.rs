//! Words to the service manager that started this process, as `sd_notify` of systemd says them.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the manager, if there is one that wants to hear: `READY=1`, `STOPPING=1`. One that does not listen is no error.
pub fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name.to_string_lossy(), state) {
        tracing::warn!(%error, "cannot notify the service manager of `{state}`");
    }
}

fn send(name: &str, state: &str) -> std::io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_by_a_path_and_by_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = |listener: &UnixDatagram| {
            let mut heard = [0; 16];
            let len = listener.recv(&mut heard).unwrap();
            String::from_utf8(heard[..len].to_vec()).unwrap()
        };
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        assert_eq!(heard(&by_path), "READY=1");

        let name = format!("astacus-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(&format!("@{name}"), "STOPPING=1").unwrap();
        assert_eq!(heard(&by_name), "STOPPING=1");
    }
}
