//! The sentences about charges of several buckets, on the server.

use bolna_rate_limit::Principal;
use bolna_rate_limit::store::Charge;

use super::model::replay;
use super::{Bench, Call, Reply, Run, bucket_of, read};
use crate::read::charges::{Case, Part, Step, charges, endpoint, entries};

fn check(bench: &mut Bench, case: &Case) {
    let (tag, caller, start) = (bench.fresh(), Principal::user("u").unwrap(), bench.start);
    let (mut quotas, mut now) = (case.quotas.clone(), start);
    let (mut commands, mut expected) = (Vec::new(), Vec::new());
    for (index, step) in case.steps.iter().enumerate() {
        let what = format!("{}, step {index}", case.says);
        now = step.at.map_or(now, |at| start + 1000 * at);
        let of = |parts: &Vec<Part>| entries(parts, &quotas).unwrap();
        let runs = match step {
            // What is no charge never reaches a server.
            Step { error: Some(_), .. } => continue,
            Step { quotas: Some(changed), .. } => {
                quotas.extend(changed.clone());
                continue;
            }
            Step { charge: Some(parts), .. } => {
                vec![Run::Charge { count: 1, entries: of(parts) }]
            }
            Step { peek: Some(_), .. } => Vec::new(),
            Step { refund: Some(parts), .. } => of(parts).into_iter().map(Run::Refund).collect(),
            Step { settle: Some(parts), .. } => of(parts).into_iter().map(Run::Settle).collect(),
            Step { reset: Some(name), .. } => vec![Run::Reset(endpoint(name))],
            Step { block: Some(name), ms: Some(ms), .. } => {
                vec![Run::Block(endpoint(name), 1000 * ms)]
            }
            _ => panic!("{what}: unknown"),
        };
        let mut call = Call::of(&tag, runs, now);
        if let Some(parts) = &step.peek {
            call.buckets = of(parts).iter().map(bucket_of).collect();
        }
        commands.push(call.command(&bench.hash));
        let peeked = step.peek.as_ref().map(of);
        expected.push((what, step, call, peeked));
    }
    let replies = bench.at_once(commands);
    for (reply, (what, step, call, peeked)) in replies.iter().zip(expected) {
        let Reply::Done { mut states, .. } = read(reply) else { panic!("{what}: late") };
        if let Some(entries) = peeked {
            let charge = Charge::new(&caller, &entries).unwrap();
            step.assert_says(&charge.peek(&mut states), &what);
        } else {
            for decisions in replay(&caller, &call.buckets, &call.runs, &mut states) {
                step.assert_says(&decisions, &what);
            }
        }
    }
}

#[test]
fn every_sentence_about_charges_holds() {
    let mut bench = Bench::new();
    for case in charges() {
        check(&mut bench, &case);
    }
}
