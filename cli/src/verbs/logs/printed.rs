//! What of a followed output is on the screen: so that a request that takes over from another prints nothing twice and
//! leaves nothing out.

use holdfast_wire::v1::LogLine;
use std::collections::BTreeMap;

/// Clocks of nodes may differ by this much, and lines be this long under way, without one being left out.
const SLACK_MS: i64 = 10_000;

/// The last lines of each task.
#[derive(Debug, Default)]
pub struct Printed {
    /// Time of the last line, and how many of that time were printed, by task.
    last: BTreeMap<String, (i64, usize)>,
    newest: i64,
    since: i64,
}

impl Printed {
    /// The time from which on the next request asks for lines; 0: everything that is kept.
    pub fn since_ms(&self) -> i64 {
        self.since
    }
    /// A request was taken, which sends all that is not printed yet: the one after it may begin at this moment.
    pub fn taken(&mut self) {
        self.since = self.newest.saturating_sub(SLACK_MS).max(0);
    }
    /// Of `lines`, sent from the beginning of a request on: those that were not printed by an earlier one.
    pub fn news(&mut self, resent: &mut Resent, task: &str, lines: Vec<LogLine>) -> Vec<LogLine> {
        let start = || self.last.get(task).copied().unwrap_or_default();
        let before = resent.0.entry(task.to_owned()).or_insert_with(start);
        let is_news = |line: &LogLine| match line.at_ms.cmp(&before.0) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal if before.1 > 0 => {
                before.1 -= 1;
                false
            }
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => true,
        };
        let news: Vec<LogLine> = lines.into_iter().filter(is_news).collect();
        for line in &news {
            let last = self.last.entry(task.to_owned()).or_default();
            *last = if last.0 == line.at_ms { (last.0, last.1.saturating_add(1)) } else { (line.at_ms, 1) };
            self.newest = self.newest.max(line.at_ms);
        }
        news
    }
}

/// Where each task stood when a request began: what of its lines is still to be passed over.
#[derive(Debug, Default)]
pub struct Resent(BTreeMap<String, (i64, usize)>);

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: i64, texts: &[&str]) -> Vec<LogLine> {
        let line = |(n, t): (usize, &&str)| LogLine {
            // Two lines for each millisecond.
            at_ms: from + i64::try_from(n / 2).unwrap(),
            stream: 1,
            text: t.as_bytes().to_vec(),
        };
        texts.iter().enumerate().map(line).collect()
    }
    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|l| std::str::from_utf8(&l.text).unwrap()).collect()
    }

    #[test]
    fn a_request_that_takes_over_prints_each_line_once() {
        let all = lines(1_000_000, &["a", "b", "c", "d", "e", "f", "g"]);
        for cut in 0..=all.len() {
            let mut p = Printed::default();
            p.taken();
            let first = p.news(&mut Resent::default(), "shop.web.1", all[..cut].to_vec());
            let mut again = Resent::default();
            p.taken();
            let mut rest = p.news(&mut again, "shop.web.1", all[..3].to_vec());
            rest.extend(p.news(&mut again, "shop.web.1", all[3..].to_vec()));
            assert_eq!([texts(&first), texts(&rest)].concat(), ["a", "b", "c", "d", "e", "f", "g"], "cut at {cut}");
            assert_eq!(texts(&p.news(&mut Resent::default(), "shop.web.2", all.clone())).len(), 7, "tasks are apart");
        }
    }

    #[test]
    fn a_request_begins_where_the_one_before_it_was_taken() {
        let mut p = Printed::default();
        p.taken();
        p.news(&mut Resent::default(), "t", lines(1_000_000, &["a"]));
        // What the first request left out is not known: the second asks for everything.
        assert_eq!(p.since_ms(), 0);
        p.taken();
        p.news(&mut Resent::default(), "t", lines(2_000_000, &["b"]));
        assert_eq!(p.since_ms(), 1_000_000 - SLACK_MS);
    }
}
