//! The rules, in the order of the contract.

mod endings;
mod lease;
mod order;
mod publishing;
mod settling;
mod streams;

use super::{book::Book, report::Judge};

/// Judges one invariant over a whole history.
pub(super) type Rule = fn(&Book<'_>, &mut Judge);

/// Every rule with the invariant it judges. Two rules may judge one invariant.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("I-1", publishing::i_1_acknowledged_means_kept),
    ("I-2", publishing::i_2_refused_means_not_stored),
    ("I-3", publishing::i_3_no_half_message),
    ("I-5", publishing::i_5_bytes_as_acknowledged),
    ("I-6", endings::i_6_exactly_one_outcome),
    ("I-7", publishing::i_7_the_same_id_is_the_same_message),
    ("I-9", order::i_9_numbers_rise_and_are_not_used_again),
    ("I-10", order::i_10_first_deliveries_in_order),
    ("I-11", order::i_11_strict_keys_wait),
    ("I-12", order::i_12_shares),
    ("I-13", lease::i_13_one_lease_at_a_time),
    ("I-14", lease::i_14_fencing),
    ("I-16", lease::i_16_a_lease_lasts),
    ("I-16", lease::i_16_a_lease_ends),
    ("I-18", settling::i_18_settled_means_never_again),
    ("I-19", settling::i_19_the_first_word_counts),
    ("I-20", settling::i_20_one_result),
    ("I-22", endings::i_22_deadlines),
    ("I-23", endings::i_23_no_step_back),
    ("I-24", endings::i_24_expiry_is_its_own_outcome),
    ("I-25", endings::i_25_dead_letters),
    ("I-28", publishing::i_28_caps),
    ("I-29", lease::i_29_credit),
    ("I-33", endings::i_33_counts_agree),
    ("I-35", streams::i_35_one_terminal_frame),
    ("I-37", endings::i_37_cancel_cancels),
];
