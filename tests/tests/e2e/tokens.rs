//! Join tokens: wrong, expired, used twice.

use super::world::{World, eventually, free_port, write_key};
use std::fs;

fn join_fails(w: &mut World, token: &std::path::Path) -> String {
    let n = w.agents.len();
    w.write_agent_config(n, "");
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(n, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    let agent = &mut w.agents[n];
    let code = eventually("the agent to give up", || agent.exited());
    let text = agent.log_text();
    assert_eq!(code, Some(3), "{text}");
    text
}

#[test]
fn a_token_admits_once_and_only_while_it_lives() {
    let mut w = World::founded();
    let token = w.token("node", &[]);
    w.write_agent_config(0, "");
    let vault = format!("127.0.0.1:{}", w.join);
    w.start_agent(0, &["--join-token-file", token.to_str().unwrap(), "--vault", &vault]);
    eventually("the first node", || w.ok(&["node", "ls"]).contains("ready").then_some(()));

    join_fails(&mut w, &token);
    let short = w.token("node", &["--ttl", "1s"]);
    std::thread::park_timeout(std::time::Duration::from_millis(1100));
    join_fails(&mut w, &short);
    let wrong = w.path(&format!("wrong-{}", free_port()));
    let text = fs::read_to_string(&token).unwrap();
    let flipped: String =
        text.chars().enumerate().map(|(i, c)| if i == 30 { if c == '0' { '1' } else { '0' } } else { c }).collect();
    write_key(&wrong, &flipped);
    let said = join_fails(&mut w, &wrong);
    assert!(said.contains("checksum") || said.contains("typing"), "{said}");
    assert!(w.ok(&["log", "tail", "-n", "100"]).contains("token.deny"));
    assert_eq!(w.json(&["node", "ls"])["nodes"].as_array().unwrap().len(), 1);
}
