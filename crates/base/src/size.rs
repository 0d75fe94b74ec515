//! Byte counts as operators write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Reads and prints as in the configuration: `4KiB`, `256MiB`, `10GB`, `512B`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ByteCount(pub u64);

/// Why a text is no byte count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteCountError {
    /// No digits in front.
    NoNumber,
    /// The unit is none of those known.
    UnknownUnit,
    /// More than 2^64-1 bytes.
    TooLarge,
}

impl fmt::Display for ByteCountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNumber => "a size is a whole number and a unit, such as 64KiB",
            Self::UnknownUnit => "the unit of a size is one of B, KiB, MiB, GiB, KB, MB, GB",
            Self::TooLarge => "the size is larger than 2^64-1 bytes",
        })
    }
}

impl std::error::Error for ByteCountError {}

impl FromStr for ByteCount {
    type Err = ByteCountError;

    /// A whole number, optional blanks, a unit (none means bytes).
    fn from_str(text: &str) -> Result<Self, ByteCountError> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(ByteCountError::NoNumber);
        }
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| ByteCountError::TooLarge)?;
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(ByteCountError::UnknownUnit),
        };
        number.checked_mul(factor).map(Self).ok_or(ByteCountError::TooLarge)
    }
}

impl fmt::Display for ByteCount {
    /// The largest binary unit that divides it, so that what is printed reads back as the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for n in [0, 1, 1023, 1024, 65_536, 10 << 30, 1_000_000, u64::MAX] {
            assert_eq!(ByteCount(n).to_string().parse(), Ok(ByteCount(n)));
        }
    }

    #[test]
    fn units_are_those_of_the_contract_and_no_others() {
        assert_eq!("10GB".parse(), Ok(ByteCount(10_000_000_000)));
        assert_eq!("4 KiB".parse(), Ok(ByteCount(4096)));
        assert_eq!("4kb".parse::<ByteCount>(), Err(ByteCountError::UnknownUnit));
        assert_eq!("KiB".parse::<ByteCount>(), Err(ByteCountError::NoNumber));
        assert_eq!("99999999999GiB".parse::<ByteCount>(), Err(ByteCountError::TooLarge));
    }
}
