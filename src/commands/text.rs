//! Numbers as people read them.

use bytesize::ByteSize;

/// A number with its digits in groups of three: `1,048,576`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the unit that suits it: `936 B`, `22.7 GiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_the_right() {
        let texts = [0, 999, 1_000, 20_000, 1_048_576].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "20,000", "1,048,576"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn sizes_take_the_unit_that_suits_them() {
        assert_eq!([936, 1 << 20].map(size), ["936 B", "1.0 MiB"]);
    }
}
