//! From the start of `holdfast service deploy` to its end, which is when the one replica runs with its secret.
//!
//! Beside it: the same OCI runtime, given the same bundle, from `create` to `start`. Both are medians.

use crate::Failed;
use crate::cluster::world::World;
use crate::line::{Goal, Line};
use crate::programs::program;
use holdfast_agent::runtime::{Backend, ContainerId, Io, Runtime as _};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

pub const HOW: &str = "median of 10 services, from the start of the CLI to its exit, vault, orchestrator, agent and image up; \
     beside: create and start of the same bundle by the embedded runtime alone, median of 10";

const RUNS: usize = 10;

pub fn one_replica() -> Result<Line, Failed> {
    let w = World::everything();
    w.put_secret("bench/password", b"correct horse battery staple", &[]);
    deploy(&w, "first")?;
    let config = config_of_the_only_task(&w)?;
    let value = median_ms(|n| deploy(&w, &format!("s{n}")))?;
    let dir = tempfile::Builder::new().prefix("hf-bench-").tempdir_in("/dev/shm")?;
    let backend = Backend::Libcontainer { program: program("holdfast-agent")?, root: dir.path().join("oci") };
    let beside = median_ms(|n| alone(&backend, dir.path(), config.clone(), n))?;
    Ok(Line { value, unit: "ms", beside, goal: Goal::AboveBeside(500.0) })
}

fn median_ms(mut run: impl FnMut(usize) -> Result<f64, Failed>) -> Result<f64, Failed> {
    let mut all = (0..RUNS).map(&mut run).collect::<Result<Vec<f64>, _>>()?;
    all.sort_by(f64::total_cmp);
    all.get(RUNS / 2).copied().ok_or_else(|| "nothing was measured".into())
}

fn deploy(w: &World, name: &str) -> Result<f64, Failed> {
    let spec = w.write_spec(
        name,
        &format!(
            "name = {name:?}\nnamespace = \"bench\"\nimage = {:?}\n\
             command = [\"/bin/busybox\", \"sleep\", \"1000000\"]\nsecrets = [{{ name = \"password\" }}]\n",
            w.busybox()
        ),
    );
    let start = Instant::now();
    w.ok(&["service", "deploy", "-f", &spec]);
    Ok(millis(start))
}

/// The runtime configuration that the agent made.
fn config_of_the_only_task(w: &World) -> Result<Value, Failed> {
    let mut tasks = fs::read_dir(w.agent_state(0).join("tasks"))?;
    let task = tasks.next().ok_or("the node has no task")??.path();
    Ok(serde_json::from_slice(&fs::read(task.join("bundle/config.json"))?)?)
}

/// One container of the bundle, in a directory and a cgroup of its own; gone afterwards.
fn alone(backend: &Backend, dir: &Path, mut config: Value, n: usize) -> Result<f64, Failed> {
    let (runtime, id) = (backend.runtime(), ContainerId::parse(&format!("alone-{n}"))?);
    let cgroup = config.pointer_mut("/linux/cgroupsPath").ok_or("the bundle names no cgroup")?;
    *cgroup = format!("/hf-bench-{}/{id}", std::process::id()).into();
    let bundle = dir.join(id.as_str());
    fs::create_dir(&bundle)?;
    fs::write(bundle.join("config.json"), config.to_string())?;
    let nowhere = || File::options().write(true).open("/dev/null").map(Into::into);
    let io = Io { stdout: nowhere()?, stderr: nowhere()? };
    let start = Instant::now();
    runtime.create(&id, &bundle, io)?;
    let started = runtime.start(&id);
    let took = millis(start);
    runtime.delete(&id)?;
    started?;
    Ok(took)
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
