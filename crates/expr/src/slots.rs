//! Which columns a bound expression reads, and giving them other places.

use super::node::{LikePattern, Node, Op, Slot};

impl Node {
    /// Calls `change` with the place of every column below, in the order they are read.
    pub fn each_slot(&mut self, change: &mut impl FnMut(&mut Slot)) {
        match &mut self.op {
            Op::Const(_) => {}
            Op::Column(reader) => change(&mut reader.slot),
            Op::Neg(a) | Op::Not(a) | Op::BitNot(a) | Op::Cast(_, a) => a.each_slot(change),
            Op::Is { value, .. } | Op::Unified { value, .. } | Op::JsonPath { value, .. } => {
                value.each_slot(change);
            }
            Op::Logic(_, parts) | Op::Coalesce(parts) | Op::Call(_, parts, _) => {
                parts.iter_mut().for_each(|part| part.each_slot(change));
            }
            Op::Extreme { parts, .. } => parts.iter_mut().for_each(|part| part.each_slot(change)),
            Op::Arithmetic(_, a, b) | Op::Bits(_, a, b) | Op::Compare(_, _, a, b) | Op::NullIf(_, a, b) => {
                a.each_slot(change);
                b.each_slot(change);
            }
            Op::In { value, list, .. } => {
                value.each_slot(change);
                list.iter_mut().for_each(|(_, item)| item.each_slot(change));
            }
            Op::Between { value, low, high, .. } => {
                value.each_slot(change);
                low.1.each_slot(change);
                high.1.each_slot(change);
            }
            Op::Like { value, pattern, .. } => {
                value.each_slot(change);
                if let LikePattern::Computed(pattern, _) = pattern {
                    pattern.each_slot(change);
                }
            }
            Op::Case { operand, arms, otherwise } => {
                if let Some(operand) = operand {
                    operand.each_slot(change);
                }
                for (_, when, then) in arms {
                    when.each_slot(change);
                    then.each_slot(change);
                }
                otherwise.each_slot(change);
            }
            Op::AddInterval { value, amount, .. } => {
                value.each_slot(change);
                amount.each_slot(change);
            }
            Op::Trim { value, what, .. } => {
                value.each_slot(change);
                if let Some(what) = what {
                    what.each_slot(change);
                }
            }
            Op::Concat { separator, parts } => {
                if let Some(separator) = separator {
                    separator.each_slot(change);
                }
                parts.iter_mut().for_each(|part| part.each_slot(change));
            }
        }
    }
}
