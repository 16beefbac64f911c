use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = PAGE_SIZE;

fn vma(pages: Range<u64>, prot: Prot) -> (u64, Vma) {
    let vma = Vma {
        end: pages.end * PAGE,
        prot,
        max_prot: Prot::all(),
        flags: VmaFlags::empty(),
        content: Content::Anonymous,
    };
    (pages.start * PAGE, vma)
}

fn shared(pages: Range<u64>, object: u64) -> (u64, Vma) {
    let (start, mut vma) = vma(pages, Prot::READ);
    vma.flags = VmaFlags::SHARED;
    vma.content = Content::SharedAnonymous { object, offset: 0 };
    (start, vma)
}

#[test]
fn alike_neighbours_merge_and_others_do_not() {
    let mut tree = VmaTree::default();
    for (start, vma) in [vma(1..2, Prot::READ), vma(3..4, Prot::READ), vma(2..3, Prot::READ)] {
        tree.insert(start, vma);
    }
    let (start, other) = vma(4..5, Prot::WRITE);
    tree.insert(start, other);
    let ranges: Vec<_> = tree.iter().map(|(start, vma)| (start / PAGE, vma.end / PAGE)).collect();
    assert_eq!(ranges, [(1, 4), (4, 5)]);
}

#[test]
fn split_pieces_keep_their_offsets_and_merge_again() {
    let mut tree = VmaTree::default();
    let (start, whole) = shared(10..20, 7);
    tree.insert(start, whole);
    tree.update(12 * PAGE..15 * PAGE, |vma| vma.prot = Prot::empty());
    let offset = |addr: u64| match tree.find(addr * PAGE).map(|(_, vma)| &vma.content) {
        Some(Content::SharedAnonymous { offset, .. }) => *offset / PAGE,
        _ => u64::MAX,
    };
    assert_eq!((offset(10), offset(12), offset(15)), (0, 2, 5));
    tree.update(10 * PAGE..20 * PAGE, |vma| vma.prot = Prot::READ);
    assert_eq!(tree.len(), 1);
}

#[test]
fn free_ranges_come_top_down_and_gaps_are_used_again() {
    let mut tree = VmaTree::default();
    let place = |tree: &mut VmaTree, pages: u64| {
        let at = tree.find_free_top_down(PAGE, 100 * PAGE, pages * PAGE, 0)?;
        // Different protections, so that nothing merges.
        let (start, new) =
            vma(at / PAGE..at / PAGE + pages, Prot::from_bits_truncate(at as u32 >> 12));
        tree.insert(start, new);
        Some(at / PAGE)
    };
    assert_eq!(place(&mut tree, 10), Some(90));
    assert_eq!(place(&mut tree, 10), Some(80));
    assert_eq!(place(&mut tree, 5), Some(75));
    tree.remove(82 * PAGE..88 * PAGE);
    assert_eq!(place(&mut tree, 7), Some(68));
    assert_eq!(place(&mut tree, 6), Some(82));
    assert_eq!(place(&mut tree, 67), Some(1));
    assert_eq!(place(&mut tree, 1), None);
}

#[derive(Debug, Clone)]
enum Step {
    Map(Range<u64>, u32),
    Unmap(Range<u64>),
    Protect(Range<u64>, u32),
    Place(u64, u32),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (1u64..60, 1u64..12).prop_map(|(start, len)| start..start + len)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (range(), 0u32..4).prop_map(|(range, prot)| Step::Map(range, prot)),
        range().prop_map(Step::Unmap),
        (range(), 0u32..4).prop_map(|(range, prot)| Step::Protect(range, prot)),
        (1u64..8, 0u32..4).prop_map(|(len, prot)| Step::Place(len, prot)),
    ]
}

fn bytes(pages: &Range<u64>) -> Range<u64> {
    pages.start * PAGE..pages.end * PAGE
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The tree against a map of single pages.
    #[test]
    fn tree_agrees_with_a_page_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut tree = VmaTree::default();
        let mut pages: BTreeMap<u64, u32> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Map(range, prot) => {
                    tree.remove(bytes(&range));
                    let (start, new) = vma(range.clone(), Prot::from_bits_truncate(prot));
                    tree.insert(start, new);
                    pages.extend(range.map(|page| (page, prot)));
                }
                Step::Unmap(range) => {
                    tree.remove(bytes(&range));
                    pages.retain(|page, _| !range.contains(page));
                }
                Step::Protect(range, prot) => {
                    tree.update(bytes(&range), |vma| vma.prot = Prot::from_bits_truncate(prot));
                    for (_, value) in pages.range_mut(range) {
                        *value = prot;
                    }
                }
                Step::Place(len, prot) => {
                    let free = |at: u64| (at..at + len).all(|page| !pages.contains_key(&page));
                    let expected = (1..=72 - len).rev().find(|at| free(*at));
                    let found = tree.find_free_top_down(PAGE, 72 * PAGE, len * PAGE, 0);
                    prop_assert_eq!(found, expected.map(|at| at * PAGE));
                    if let Some(at) = expected {
                        let (start, new) = vma(at..at + len, Prot::from_bits_truncate(prot));
                        tree.insert(start, new);
                        pages.extend((at..at + len).map(|page| (page, prot)));
                    }
                }
            }
            for page in 0..80 {
                let prot = tree.find(page * PAGE + 5).map(|(_, vma)| vma.prot.bits());
                prop_assert_eq!(prot, pages.get(&page).copied(), "page {}", page);
            }
            prop_assert_eq!(tree.totals().mapped, pages.len() as u64 * PAGE);
            // Merged as far as can be.
            let all: Vec<_> = tree.iter().collect();
            for pair in all.windows(2) {
                let touching = pair[0].1.end == pair[1].0;
                prop_assert!(!touching || pair[0].1.prot != pair[1].1.prot);
            }
        }
    }
}
