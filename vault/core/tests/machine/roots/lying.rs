//! A machine that says of itself what is not so: that it has the newest Bundle, which it was never sent.

use super::world::{Roots, believes};
use holdfast_pki::bundle::{Admins, verify_bundle_chain};
use holdfast_pki::chain::Usage;
use holdfast_vault_core::Command;

#[test]
fn who_says_that_it_has_the_newest_bundle_without_it_hurts_itself_alone_and_catches_up_from_what_it_has() {
    for crossed in [true, false] {
        let mut r = Roots::new();
        let (mut liar, mut honest) = (r.node(), r.node());
        let a = r.signer();
        r.order("software").unwrap();
        let b = r
            .add_edited(|n| {
                if !crossed {
                    n.cross.clear();
                }
            })
            .unwrap();
        r.deliver(&mut honest);
        r.ack(&honest);
        // Where no root certified the new one, this word alone is what is waited for.
        assert!(crossed || r.w.state.switch_guard(&b).is_err());
        let (had, newest) = (liar.trust.doc.epoch, r.w.state.bundle_epoch());
        assert!(had < newest);
        r.w.propose(Command::Acked(vec![(liar.m.id.clone(), newest)])).result.unwrap();
        r.switch(b).unwrap();
        r.report();
        for s in [&mut liar, &mut honest] {
            assert!(r.renew(s) && r.show(s));
        }
        r.drop_root(a).unwrap();
        r.report();
        assert_eq!(r.trusted(), [b]);

        // The old root is gone, and the liar knows no other. Nobody else pays for it.
        let (domain, now, only) = (r.domain(), r.w.now, r.w.state.roots_der());
        assert!(liar.trust.doc.epoch == had && liar.trust.doc.roots != only);
        if !crossed {
            assert!(believes(&liar.trust.doc.roots, &r.vault, &domain, now, Usage::Server).is_err());
        }
        r.deliver(&mut honest);
        believes(&honest.trust.doc.roots, &r.vault, &domain, now, Usage::Server).unwrap();
        believes(&only, &honest.chain, &domain, now, Usage::Client).unwrap();

        // The Bundles lead it from what it really has to the present, whatever it said; also its next word counts.
        let charters = r.charters();
        let chain = r.w.state.bundle_chain();
        let found = verify_bundle_chain(&chain, &liar.trust.doc.roots, Admins::ever(&charters), &r.w.cluster).unwrap();
        assert_eq!(found.doc.roots, only);
        r.deliver(&mut liar);
        assert_eq!((liar.trust.doc.epoch, &liar.trust.doc.roots), (r.w.state.bundle_epoch(), &only));
        r.ack(&liar);
        believes(&liar.trust.doc.roots, &r.vault, &domain, now, Usage::Server).unwrap();
        believes(&only, &liar.chain, &domain, now, Usage::Client).unwrap();
        let mut all = [liar, honest];
        r.order("software").unwrap();
        r.settle(&mut all);
        assert!(all.iter().all(|s| r.cert_root(s) == Some(r.signer()) && r.is_live(s)));
    }
}
