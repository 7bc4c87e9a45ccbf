//! Parts of a grant that need no look-up: images with their publishers, and params, the only holes of a signed spec.

use crate::refusal::Refusal;
use holdfast_wire::v1;

pub(super) fn grant_image((i, publishers): (&v1::SpecImage, &Vec<String>)) -> v1::GrantImage {
    v1::GrantImage {
        name: i.name.clone(),
        digest: i.digest.clone(),
        publisher: publishers.first().cloned().unwrap_or_default(),
    }
}

/// All who vouched for one image or another; empty if one image has nobody.
pub(super) fn vouching(publishers: &[Vec<String>]) -> Vec<String> {
    if publishers.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let mut all = publishers.concat();
    all.sort();
    all.dedup();
    all
}

/// Params are the only holes of a spec: declared, of their kind, within their bounds, none missing.
pub(super) fn check_params(spec: &v1::Spec, given: &[v1::Param]) -> Result<(), Refusal> {
    let names_match = given.len() == spec.params.len() && spec.params.iter().zip(given).all(|(d, p)| d.name == p.name);
    if !names_match {
        return Err(Refusal::invalid("the params are not those that the spec declares, in its order"));
    }
    for (d, p) in spec.params.iter().zip(given) {
        let fits = match d.kind.as_str() {
            "int" => p.value.parse::<i64>().is_ok_and(|n| d.min <= n && n <= d.max && n.to_string() == p.value),
            "string" => p.value.len() <= d.max_len as usize && p.value.bytes().all(|b| b.is_ascii_graphic()),
            _ => false,
        };
        if !fits {
            return Err(Refusal::invalid(format!("param {} is not within its bounds", d.name)));
        }
    }
    Ok(())
}
