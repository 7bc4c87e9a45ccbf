//! Orders to stop: only by the newest lease, and only the task that is named.

use super::super::world::{World, eventually};
use super::orchestrator::Evil;
use super::{VALUE, assert_honest_work_goes_on, evidence, node_ids, shims};
use holdfast_wire::v1::Stop;

#[test]
fn a_stop_by_another_lease_or_for_another_task_stops_nothing() {
    let mut w = World::everything();
    w.put_secret("shop/db-password", VALUE, &[]);
    w.ok(&["service", "deploy", "-f", &w.web_spec(1)]);
    let task = w.running("shop/web")[0]["task"].as_str().unwrap().to_owned();
    let before = shims(&w, 0);
    assert_eq!(before.len(), 1);
    let evil = Evil::in_place_of_the_honest_one(&mut w);
    let node = node_ids(&w).remove(0);
    let fence = eventually("the lease of the namespace", || evil.lease("shop"));
    let good = Stop { task_id: task, namespace: "shop".into(), fence, timeout_ms: 1, ..Stop::default() };

    evil.stop(&node, Stop { task_id: "shop.other.1".into(), ..good.clone() });
    for (code, stop) in [
        ("fence", Stop { fence: fence - 1, ..good.clone() }),
        ("fence-unproven", Stop { fence: fence + 1, ..good.clone() }),
        ("stop-task", Stop { namespace: "bank".into(), ..good.clone() }),
    ] {
        evil.stop(&node, stop);
        evidence(&w, code);
    }
    assert_eq!(shims(&w, 0), before);
    assert_eq!(w.running("shop/web").len(), 1);

    // What it may stop, it may stop; the honest orchestrator puts it back.
    evil.stop(&node, good);
    eventually("the task to end", || shims(&w, 0).is_empty().then_some(()));
    drop(evil);
    assert_honest_work_goes_on(&mut w, 1);
}
