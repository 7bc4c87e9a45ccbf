//! Parts of a grant that need no look-up: images with their publishers.

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
