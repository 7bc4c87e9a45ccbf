//! Padmé padding: hides a value's length up to about 12 %, so that a box does not tell which password it holds.

/// Length that `n` bytes (with their 4-byte length prefix) are padded to (Padmé: PURBs, section 4).
pub fn padded_len(n: usize) -> usize {
    let l = n.saturating_add(4).max(64);
    let e = l.ilog2();
    let s = e.max(1).ilog2() + 1;
    let mask = (1_usize << (e - s.min(e))) - 1;
    l.saturating_add(mask) & !mask
}

/// `len u32-be ‖ value ‖ zeros`.
pub fn pad(value: &[u8]) -> Vec<u8> {
    let mut v = Vec::with_capacity(padded_len(value.len()));
    v.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    v.extend_from_slice(value);
    v.resize(padded_len(value.len()), 0);
    v
}

/// The value inside a padded one; `None` unless it is exactly what [`pad`] makes.
pub fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let (len, rest) = padded.split_first_chunk::<4>()?;
    let (value, zeros) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    (zeros.iter().all(|b| *b == 0) && padded.len() == padded_len(value.len())).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn padding_comes_off_and_costs_at_most_an_eighth(v in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let p = pad(&v);
            prop_assert_eq!(unpad(&p), Some(v.as_slice()));
            prop_assert!(p.len() <= (v.len() + 4).max(64) * 9 / 8 + 1);
        }
    }

    #[test]
    fn a_wrong_length_or_a_dirty_tail_is_refused() {
        let mut p = pad(b"x");
        *p.last_mut().unwrap() = 1;
        assert_eq!(unpad(&p), None);
        p.pop();
        assert_eq!(unpad(&p), None);
        assert_eq!(unpad(&[0xff; 8]), None);
    }
}
