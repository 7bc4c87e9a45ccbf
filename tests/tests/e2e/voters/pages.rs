//! The page about several voters, followed word for word: each of its commands is run in its order. The machine that it
//! admits is one more process here, and the one that it restarts is the one that leads.

use super::world::{Voter, Voters, waits};
use crate::pages::{commands, shell};

/// Somebody who reads the page and types.
struct Reader {
    v: Voters,
    umask: String,
    /// The machine that waits to be admitted: its process, id and key.
    newcomer: Option<(Voter, String, String)>,
    /// The voter that is to be evicted.
    gone: usize,
    /// The number of the one that was.
    evicted: u64,
}

impl Reader {
    /// Follows `page` and returns what its commands printed.
    fn follow(&mut self, page: &str) -> String {
        commands(page).iter().map(|line| self.type_in(line)).collect()
    }

    fn type_in(&mut self, line: &str) -> String {
        let number = self.v.all.get(self.gone).map_or(self.evicted, |v| v.id).to_string();
        let mut line = line.replace(" NUMBER", &format!(" {number}"));
        if let Some((_, id, key)) = &self.newcomer {
            line = line.replace(" ID", &format!(" {id}")).replace(" FINGERPRINT", &format!(" {key}"));
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["umask", mask] => {
                self.umask = mask.to_owned();
                String::new()
            }
            ["holdfast-vault", "--config", _, "--join-token-file", token, "--vault", _] => {
                let mut voter = Voter::place(&self.v.w, "newcomer");
                voter.configure("");
                let (token, first) = (self.v.w.text(token), &self.v.all[0]);
                let vault = format!("{}:{}", first.host, first.join);
                voter.start(&["--join-token-file", &token, "--vault", &vault]);
                let (id, key) = waits(&voter);
                assert!(voter.log_text().contains(&id) && voter.log_text().contains(&key), "{}", voter.log_text());
                self.newcomer = Some((voter, id, key));
                String::new()
            }
            ["systemctl", "restart", "holdfast-vault"] => {
                let (leader, _) = self.v.leader();
                self.v.all[leader].stop();
                self.v.come_back(leader);
                self.v.settle();
                String::new()
            }
            ["holdfast", ..] => {
                let said = self.tool(&line);
                self.after(&words);
                said
            }
            _ => panic!("what does this do? {line}"),
        }
    }

    /// What whoever types sees to before the next command.
    fn after(&mut self, words: &[&str]) {
        match words {
            ["holdfast", "voter", "admit", ..] => {
                let (mut voter, ..) = self.newcomer.take().expect("somebody waits");
                voter.becomes("ready");
                // The page: stopped, and started by systemd from now on.
                voter.stop();
                voter.come_back(&self.v.w);
                voter.id = voter.ask().unwrap().voter_id;
                self.v.all.push(voter);
                self.v.settle();
            }
            // Said once more of one that is gone.
            ["holdfast", "voter", "evict", ..] if self.gone == usize::MAX => {}
            ["holdfast", "voter", "evict", ..] => {
                self.evicted = self.v.all.remove(self.gone).id;
                self.gone = usize::MAX;
            }
            _ => {}
        }
    }

    /// A line as a shell takes it.
    fn tool(&self, line: &str) -> String {
        let o = shell(&self.v.w, &format!("umask {}; {line}", self.umask)).output().unwrap();
        assert!(o.status.success(), "{line}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
}

#[test]
fn a_voter_is_admitted_evicted_and_restarted_as_the_page_says() {
    let v = Voters::founded(2);
    let gone = v.follower();
    let mut r = Reader { v, umask: "022".to_owned(), newcomer: None, gone, evicted: 0 };
    let said = r.follow("voters.md");
    assert!(said.contains("WAITS AS") && said.contains("ready"), "{said}");
    assert_eq!(r.v.put("shop/a", b"value"), 1);
    let log = r.v.w.ok(&["log", "tail", "-n", "100"]);
    assert!(log.contains("voter.admit") && log.contains("voter.evict"), "{log}");
    r.v.verifies();
}
