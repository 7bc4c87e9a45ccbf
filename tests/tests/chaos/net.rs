//! Networks of their own: one for each voter, one for the clients, and a switch between them, in namespaces that end with
//! the test. The test itself goes on in the clients' one, as a second process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How many voters have a network.
pub const VOTERS: usize = 3;
/// Names the networks to the process that goes on in one of them.
const INSIDE: &str = "HOLDFAST_CHAOS_NET";
/// The clients' place, beside the voters' 1, 2 and 3.
pub const CLIENTS: usize = 9;

/// The networks, by the prefix of their names.
pub struct Net {
    prefix: String,
    /// Made here, and taken away when it goes.
    own: bool,
}

/// Runs a command that must succeed.
fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let o = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(o.status.success(), "{command}: {}", String::from_utf8_lossy(&o.stderr));
}

/// Runs `test` within networks of its own: in a second process of this test, whose end is awaited.
pub fn inside(name: &str, test: impl FnOnce(&Net)) {
    if let Ok(prefix) = std::env::var(INSIDE) {
        return test(&Net { prefix, own: false });
    }
    assert!(rustix::process::geteuid().is_root(), "these tests make networks and need root");
    let net = Net::made();
    // Mounts of its own, too: whatever it mounts goes with it.
    let mut c = net.command(CLIENTS, Path::new("unshare"));
    c.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    c.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, &net.prefix).stdin(Stdio::null());
    let mut child = c.spawn().unwrap();
    let status = child.wait().unwrap();
    drop(net);
    assert!(status.success(), "{name}: {status}");
}

impl Net {
    fn made() -> Self {
        sweep();
        let prefix = format!("hfc{}", std::process::id());
        let net = Self { prefix, own: true };
        let hub = net.namespace("hub");
        run(&format!("ip netns add {hub}"));
        run(&format!("ip -n {hub} link add br0 type bridge"));
        run(&format!("ip -n {hub} link set br0 up"));
        for place in net.places() {
            let ns = net.namespace(&place.to_string());
            run(&format!("ip netns add {ns}"));
            run(&format!("ip link add eth0 netns {ns} type veth peer name p{place} netns {hub}"));
            run(&format!("ip -n {hub} link set p{place} master br0 up"));
            run(&format!("ip -n {ns} link set lo up"));
            run(&format!("ip -n {ns} addr add {}/24 dev eth0", address(place)));
            run(&format!("ip -n {ns} link set eth0 up"));
            run(&format!("ip netns exec {ns} nft add table inet hf"));
            run(&format!("ip netns exec {ns} nft add chain inet hf in {{ type filter hook input priority 0 ; }}"));
        }
        net
    }
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (1..=VOTERS).chain([CLIENTS])
    }
    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.prefix)
    }
    /// What runs a program in the network at `place`, with the same process id as the program then has.
    pub fn through(&self, place: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace(&place.to_string()))]
    }
    fn command(&self, place: usize, program: &Path) -> Command {
        let through = self.through(place);
        let mut c = Command::new(&through[0]);
        c.args(&through[1..]).arg(program);
        c
    }
    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: usize, to: usize) {
        let ns = self.namespace(&to.to_string());
        run(&format!("ip netns exec {ns} nft add rule inet hf in ip saddr {} drop", address(from)));
    }
    /// Every network is whole.
    pub fn heal(&self) {
        for place in self.places() {
            let ns = self.namespace(&place.to_string());
            run(&format!("ip netns exec {ns} nft flush chain inet hf in"));
        }
    }
    /// Whether a connection from one place to another comes about.
    pub fn hears(&self, from: usize, to: usize) -> bool {
        // Whoever refuses was reached: nobody listens on that port.
        let program = "import socket, sys\n\
                       try:\n\
                       \x20   socket.create_connection((sys.argv[1], 9), 1)\n\
                       except ConnectionRefusedError:\n\
                       \x20   sys.exit(0)\n\
                       except OSError:\n\
                       \x20   sys.exit(3)\n";
        let mut c = self.command(from, Path::new("python3"));
        let status = c.args(["-c", program, &address(to)]).stderr(Stdio::null()).status().unwrap();
        status.success()
    }
}

/// The address of a place.
pub fn address(place: usize) -> String {
    format!("10.79.0.{place}")
}

/// The networks that the process was started in.
pub fn around() -> Net {
    Net { prefix: std::env::var(INSIDE).expect("the test runs in a network of its own"), own: false }
}

/// Namespaces whose test has ended without taking them away.
fn sweep() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|e| e.file_name().into_string().ok()) {
        let pid = name.strip_prefix("hfc").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status());
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.own {
            for place in self.places().map(|p| p.to_string()).chain(["hub".to_owned()]) {
                drop(Command::new("ip").args(["netns", "del", &self.namespace(&place)]).status());
            }
        }
    }
}

/// How long a fault may take to be over for everybody.
pub const HEALED: Duration = Duration::from_secs(30);
