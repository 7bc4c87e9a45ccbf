//! Service files: a golden one with every key, and what is refused, by which words.

use super::*;

const EVERYTHING: &str = r#"
name = "web"
namespace = "shop"
image = "registry.local:5000/shop/web:1.4"
command = ["/bin/server"]
args = ["--fast"]
env = { B = "2", A = "1" }
replicas = 3
secrets = [{ name = "db-password", target = "db", mode = 0o400 }, { name = "tls" }]
zones = ["eu/pci"]
node-labels = ["disk=ssd"]
resources = { cpu = "250m", memory = "128Mi", pids = 64 }
health = { command = ["/bin/check"], interval = "5s", retries = 3 }
update = { parallelism = 1, order = "start-first", on-failure = "rollback", monitor = "10s" }
tmpfs = [{ target = "/tmp", size = "16Mi" }]
user = 1000
workdir = "/srv"
restart = "on-failure"
on-expiry = "stop"
protected = true
valid-for = "30d"
"#;

fn image() -> ResolvedImage {
    let digest = holdfast_types::sha256(&[b"manifest"]);
    ResolvedImage {
        repository: "registry.local:5000/shop/web".into(),
        digest,
        source: "registry.local:5000/shop/web".into(),
    }
}

#[test]
fn every_key_of_a_service_file_reaches_the_spec() {
    let cluster = ClusterId([7; 32]);
    let spec = parse(EVERYTHING, "web.toml").unwrap().into_spec(&cluster, 4, &image(), 1000);
    let mount = |name: &str, target: &str| v1::SecretMount {
        name: name.into(),
        target: target.into(),
        mode: 0o400,
        uid: 1000,
        gid: 1000,
    };
    let var = |name: &str, value: &str| v1::EnvVar { name: name.into(), value: value.into() };
    let expected = v1::Spec {
        cluster_id: vec![7; 32],
        namespace: "shop".into(),
        service: "web".into(),
        version: 4,
        valid_until_ms: 1000 + 30 * 86_400_000,
        images: vec![v1::SpecImage {
            name: image().repository,
            digest: image().digest.to_vec(),
            source: image().source,
        }],
        command: vec!["/bin/server".into()],
        args: vec!["--fast".into()],
        env: vec![var("A", "1"), var("B", "2")],
        secrets: vec![mount("db-password", "db"), mount("tls", "tls")],
        params: vec![],
        replicas_min: 3,
        replicas_max: 3,
        resources: Some(v1::Resources { cpu_milli: 250, memory_bytes: 128 << 20, pids: 64 }),
        isolation: "default".into(),
        zones: vec!["eu/pci".into()],
        node_labels: vec!["disk=ssd".into()],
        exclusive: false,
        protected: true,
        sensitive: false,
        on_expiry: "stop".into(),
        restart: "on-failure".into(),
        user: 1000,
        workdir: "/srv".into(),
        tmpfs: vec![v1::TmpfsMount { target: "/tmp".into(), size_bytes: 16 << 20 }],
        health: Some(v1::HealthCheck { command: vec!["/bin/check".into()], interval_ms: 5000, retries: 3 }),
        update: Some(v1::UpdatePolicy {
            parallelism: 1,
            order: "start-first".into(),
            on_failure: "rollback".into(),
            monitor_ms: 10_000,
        }),
    };
    assert_eq!(spec, expected);
}

#[test]
fn the_shortest_file_runs_one_task_anywhere() {
    let s = parse("name = \"a\"\nimage = \"x\"\n", "a.toml").unwrap();
    let spec = s.into_spec(&ClusterId([0; 32]), 1, &image(), 0);
    assert_eq!((spec.namespace.as_str(), spec.replicas_max, spec.zones), ("default", 1, vec!["*".to_owned()]));
    assert_eq!((spec.on_expiry.as_str(), spec.restart.as_str(), spec.resources), ("run-on", "always", None));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let f = parse("name = \"a\"\nimage = \"x\"\nreplcas = 2\n", "a.toml").unwrap_err();
    assert!(f.message.starts_with("a.toml: line 3: unknown field `replcas`"), "{}", f.message);
    assert_eq!(f.code, Code::SpecInvalid.word());
    let f = parse("name = \"a\"\nimage = \"x\"\n\n[health]\ncommand = []\ntimeout = \"5s\"\n", "a.toml").unwrap_err();
    assert!(f.message.contains("line 6: unknown field `timeout`"), "{}", f.message);
}

#[test]
fn all_faults_are_named_together() {
    let text = "name = \"A\"\nimage = \"\"\nreplicas = 0\nzones = [\"EU\"]\nresources = { cpu = \"fast\", memory = \"1X\" }\nrestart = \"sometimes\"\n";
    let f = parse(text, "a.toml").unwrap_err();
    for key in ["name:", "image:", "replicas:", "zones:", "resources.cpu:", "resources.memory:", "restart:"] {
        assert!(f.message.contains(key), "{key} in {}", f.message);
    }
}

#[test]
fn an_exclusive_task_stops_at_the_end_of_its_lease_and_cannot_be_told_otherwise() {
    let with = |more: &str| parse(&format!("name = \"a\"\nimage = \"x\"\nexclusive = true\n{more}"), "a.toml");
    assert_eq!(with("").unwrap().content.on_expiry, "stop");
    assert!(with("on-expiry = \"run-on\"\n").unwrap_err().message.contains("on-expiry"));
}

#[test]
fn a_secret_never_leaves_its_folder_and_is_never_writable() {
    for bad in [
        r#"{ name = "x", target = "../x" }"#,
        r#"{ name = "x", target = "a/b" }"#,
        r#"{ name = "x", target = ".x" }"#,
        r#"{ name = "x", mode = 0o600 }"#,
        r#"{ name = "x", mode = 0o4400 }"#,
        r#"{ name = "x", mode = 0 }"#,
    ] {
        let text = format!("name = \"a\"\nimage = \"x\"\nsecrets = [{bad}]\n");
        assert!(parse(&text, "a.toml").is_err(), "{bad}");
    }
}

#[test]
fn ports_and_compose_files_are_refused_by_name() {
    let f =
        parse("name = \"a\"\nimage = \"x\"\nports = [{ name = \"http\", container = 8080, publish = 80 }]\n", "a.toml")
            .unwrap_err();
    assert_eq!(f.code, Code::NotAvailableYet.word());
    assert!(f.message.contains("`ports` (http)"), "{}", f.message);
    assert_eq!(read(Path::new("compose.yaml")).unwrap_err().code, Code::NotAvailableYet.word());
}

#[test]
fn a_signed_spec_lives_at_most_180_days() {
    for (given, ok) in [("180d", true), ("181d", false), ("0s", false)] {
        assert_eq!(
            parse(&format!("name = \"a\"\nimage = \"x\"\nvalid-for = \"{given}\"\n"), "a").is_ok(),
            ok,
            "{given}"
        );
    }
}

#[test]
fn cpu_is_read_in_thousandths() {
    for (given, milli) in [("250m", 250), ("2", 2000), ("1.5", 1500), ("0.05", 50)] {
        let text = format!("name = \"a\"\nimage = \"x\"\nresources = {{ cpu = \"{given}\" }}\n");
        let spec = parse(&text, "a").unwrap().into_spec(&ClusterId([0; 32]), 1, &image(), 0);
        assert_eq!(spec.resources.unwrap().cpu_milli, milli, "{given}");
    }
    for bad in ["", "0", "m", "-1", "1.2345", "1,5", "5000000"] {
        let text = format!("name = \"a\"\nimage = \"x\"\nresources = {{ cpu = \"{bad}\" }}\n");
        assert!(parse(&text, "a").is_err(), "{bad:?}");
    }
}

#[test]
fn whatever_is_written_over_a_service_file_is_taken_or_refused_in_one_line() {
    const WORDS: [&str; 9] = ["", "\"", "[", "{ ", "= ", "\n", "-1", "99999999999999999999", "\u{0}é"];
    let mut taken = 0;
    for at in 0..EVERYTHING.len() {
        for word in WORDS {
            let text = format!("{}{word}{}", &EVERYTHING[..at], &EVERYTHING[at + 1..]);
            match parse(&text, "web.toml") {
                Ok(service) => {
                    assert!(!service.into_spec(&ClusterId([7; 32]), 1, &image(), 1000).images.is_empty());
                    taken += 1;
                }
                Err(f) => {
                    assert!(!f.message.contains('\n') && f.code == Code::SpecInvalid.word(), "{at} {word:?}: {f:?}")
                }
            }
        }
    }
    assert!(taken > 100, "{taken} files were taken: the words break everything at once");
}

#[test]
fn what_is_signed_and_not_done_yet_is_said_and_nothing_else_is() {
    let notes = |keys: &str| {
        let text = format!("name = \"web\"\nimage = \"r.example/web\"\n{keys}\n");
        parse(&text, "web.toml").unwrap().notes().join("\n")
    };
    let rollback = notes("update = { on-failure = \"rollback\" }");
    assert!(rollback.starts_with("update.on-failure: ") && rollback.contains("pauses"), "{rollback}");
    assert!(notes("health = { command = [\"/bin/check\"] }").starts_with("health: "));
    for done in ["", "update = { on-failure = \"pause\" }", "update = { on-failure = \"continue\" }", "replicas = 2"] {
        assert_eq!(notes(done), "");
    }
    assert_eq!(parse(EVERYTHING, "web.toml").unwrap().notes().len(), 2);
}
