//! Debian's `docker-registry` on a free port of this machine, in clear or with TLS; gone when it is dropped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running registry.
pub struct Registry {
    process: Child,
    name: String,
    /// Where it keeps its content.
    pub storage: PathBuf,
    /// The folder with its root, if it speaks TLS.
    certificates: Option<PathBuf>,
}

impl Registry {
    /// In clear, as is taken on loopback addresses alone. Its files lie in `dir`.
    pub fn start(dir: &Path) -> Self {
        Self::serve(dir, None)
    }
    /// Over TLS, with a certificate of a root of its own. It is named by an address that leads to this machine and is no
    /// loopback address, so that nobody may speak to it in clear.
    pub fn start_tls(dir: &Path) -> Self {
        let certificates = dir.join("registry-certificates");
        fs::create_dir_all(&certificates).unwrap();
        certify(&certificates);
        Self::serve(dir, Some(certificates))
    }

    fn serve(dir: &Path, certificates: Option<PathBuf>) -> Self {
        let (storage, config) = (dir.join("registry"), dir.join("registry.yml"));
        let tls = certificates.as_ref().map_or_else(String::new, |c| {
            format!(", tls: {{ certificate: {0}/server.pem, key: {0}/server-key.pem }}", c.display())
        });
        let text = format!(
            "version: 0.1\nlog: {{ level: info, formatter: json }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"127.0.0.1:0\"{tls} }}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let heard = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let after = line.split_once("listening on 127.0.0.1:")?.1.to_owned();
            Some(after.chars().take_while(char::is_ascii_digit).collect::<String>())
        });
        // The registry must not stop at a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let port = heard.expect("the registry did not say where it listens");
        let host = if certificates.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        Self { process, name: format!("{host}:{port}"), storage, certificates }
    }

    /// `host:port`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The certificate of its root, PEM.
    pub fn root(&self) -> PathBuf {
        self.certificates.as_ref().expect("it speaks in clear").join("root.crt")
    }
    /// Puts the image of an OCI layout, `PATH` or `PATH:REF`, below the name `image`, byte for byte.
    pub fn push(&self, layout: &str, image: &str) {
        let trust = self.certificates.as_ref();
        let trust = trust.map_or("--dest-tls-verify=false".to_owned(), |c| format!("--dest-cert-dir={}", c.display()));
        let (from, to) = (format!("oci:{layout}"), format!("docker://{}/{image}", self.name));
        run("skopeo", &["--insecure-policy", "copy", "--preserve-digests", &trust, &from, &to]);
    }
}
impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Makes a root, `root.crt`, and what it certifies, `server.pem` and `server-key.pem`, in `dir`.
fn certify(dir: &Path) {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let config = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = unused\n\
                  [root]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
                  [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:0.0.0.0\nextendedKeyUsage = serverAuth\n";
    fs::write(file("openssl.cnf"), config).unwrap();
    let make = |what: &str, subject: &str, key: &str, certificate: &str, more: &[&str]| {
        let (config, key, certificate) = (file("openssl.cnf"), file(key), file(certificate));
        let fresh = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let named = ["-config", &config, "-extensions", what, "-subj", subject, "-keyout", &key, "-out", &certificate];
        run("openssl", &[&fresh[..], &named[..], more].concat());
    };
    make("root", "/CN=registry root", "root.key.pem", "root.crt", &[]);
    let by = ["-CA", &file("root.crt"), "-CAkey", &file("root.key.pem")];
    make("server", "/CN=registry", "server-key.pem", "server.pem", &by);
}

/// Runs a program, which must succeed.
pub fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("install {program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
