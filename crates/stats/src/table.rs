//! Metric tables: one row per number, known at compile time, with the handle its writer uses.
//!
//! A crate that counts declares its rows with [`metrics!`](crate::metrics!). A handle ([`Counter`], [`Gauge`],
//! [`Histogram`]) is an offset that carries its table's type, so that the cells of one table do not take the handle of
//! another, and a histogram is not incremented.

use std::marker::PhantomData;

use crate::histogram::HISTOGRAM_WORDS;

/// What a number is, and so how readings of several threads and generations make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows; readings are added, those of dead generations too.
    Counter,
    /// Goes up and down; readings of live threads are added, the dead's are dropped.
    Gauge,
    /// How values are distributed; buckets are added, those of dead generations too.
    Histogram,
}

/// What one step of a number means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things that are counted.
    One,
    /// Bytes.
    Bytes,
    /// Nanoseconds; shown as seconds.
    Nanoseconds,
}

/// One row of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricDef {
    /// The name in Prometheus' notation, as `beltway_http_requests_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The unit it is written in.
    pub unit: Unit,
    /// One sentence for the operator. Of several rows with one name, the first row's stands for all.
    pub help: &'static str,
    /// What tells this row from others of the same name.
    pub labels: &'static [(&'static str, &'static str)],
}

impl MetricDef {
    /// Cells of eight bytes that one thread needs for this row.
    #[must_use]
    pub const fn words(&self) -> usize {
        match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            Kind::Histogram => HISTOGRAM_WORDS,
        }
    }
}

/// A set of rows that one part of the program writes. Made by [`metrics!`](crate::metrics!).
pub trait Table: 'static {
    /// The rows, in the order of their cells.
    const ROWS: &'static [MetricDef];
    /// Cells of eight bytes that one thread needs for all rows.
    const WORDS: usize = offset_of(Self::ROWS, Self::ROWS.len());
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<T> {
            offset: usize,
            table: PhantomData<fn() -> T>,
        }

        impl<T> $name<T> {
            /// The handle of the row whose first cell is `offset`. [`metrics!`](crate::metrics!) calls it.
            #[doc(hidden)]
            #[must_use]
            pub const fn at(offset: usize) -> Self {
                Self { offset, table: PhantomData }
            }

            pub(crate) const fn offset(self) -> usize {
                self.offset
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}
    };
}

handle! {
    /// The handle of a counter of table `T`.
    Counter
}
handle! {
    /// The handle of a gauge of table `T`.
    Gauge
}
handle! {
    /// The handle of a histogram of table `T`.
    Histogram
}

/// What can be added to: counters and gauges.
pub trait Additive<T>: Copy {
    /// Where its cell is within the table.
    #[doc(hidden)]
    fn cell(self) -> usize;
}

impl<T> Additive<T> for Counter<T> {
    #[inline]
    fn cell(self) -> usize {
        self.offset()
    }
}

impl<T> Additive<T> for Gauge<T> {
    #[inline]
    fn cell(self) -> usize {
        self.offset()
    }
}

/// Declares a table: a unit struct with one constant per row. The row's first documentation line is its help text.
///
/// ```
/// stats::metrics! {
///     /// What the doorman counts.
///     pub struct Doorman;
///
///     /// Guests let in.
///     counter ADMITTED = "door_guests_total" { verdict = "admitted" };
///     /// Guests turned away.
///     counter REFUSED = "door_guests_total" { verdict = "refused" };
///     /// Guests inside.
///     gauge INSIDE = "door_guests_inside";
///     /// How long a guest waited.
///     histogram WAITED = "door_wait_seconds" in Nanoseconds;
/// }
/// let cells = stats::Cells::<Doorman>::detached();
/// cells.add(Doorman::ADMITTED, 1);
/// cells.add(Doorman::INSIDE, 1);
/// cells.observe(Doorman::WAITED, 1_500_000);
/// assert_eq!(cells.value(Doorman::ADMITTED), 1);
/// ```
///
/// A name that Prometheus would not take, or a counter that does not end in `_total`, does not compile.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $table:ident;
        $(
            #[doc = $help:literal] $(#[doc = $more:literal])*
            $kind:ident $row:ident = $name:literal
                $({ $($label:ident = $value:literal),+ $(,)? })?
                $(in $unit:ident)?;
        )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $table;

        const _: () = {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the rows' constants give the names")]
            enum Row { $($row),+ }

            impl $crate::Table for $table {
                const ROWS: &'static [$crate::MetricDef] = &[$($crate::MetricDef {
                    name: $name,
                    kind: $crate::metrics!(@kind $kind),
                    unit: $crate::metrics!(@unit $($unit)?),
                    help: $help.trim_ascii(),
                    labels: &[$($((stringify!($label), $value)),+)?],
                }),+];
            }

            $crate::at_compile_time::check(<$table as $crate::Table>::ROWS);

            impl $table {
                $(
                    #[doc = $help] $(#[doc = $more])*
                    $vis const $row: $crate::metrics!(@handle $kind $table) =
                        <$crate::metrics!(@handle $kind $table)>::at(
                            $crate::at_compile_time::offset_of(<$table as $crate::Table>::ROWS, Row::$row as usize),
                        );
                )+
            }
        };
    };
    (@kind counter) => { $crate::Kind::Counter };
    (@kind gauge) => { $crate::Kind::Gauge };
    (@kind histogram) => { $crate::Kind::Histogram };
    (@unit) => { $crate::Unit::One };
    (@unit $unit:ident) => { $crate::Unit::$unit };
    (@handle counter $table:ident) => { $crate::Counter<$table> };
    (@handle gauge $table:ident) => { $crate::Gauge<$table> };
    (@handle histogram $table:ident) => { $crate::Histogram<$table> };
}

/// The first cell of row `index`, counted from the table's first cell.
#[must_use]
pub const fn offset_of(rows: &[MetricDef], index: usize) -> usize {
    let mut offset = 0;
    let mut i = 0;
    while i < index {
        offset += rows[i].words();
        i += 1;
    }
    offset
}

/// Fails the build when a row's name or label is not one Prometheus takes.
pub const fn check(rows: &[MetricDef]) {
    let mut i = 0;
    while i < rows.len() {
        let row = &rows[i];
        assert!(is_name(row.name.as_bytes()), "a metric's name is [a-z_][a-z0-9_]*");
        assert!(!row.help.is_empty(), "a metric has a help text");
        if matches!(row.kind, Kind::Counter) {
            assert!(ends_with(row.name.as_bytes(), b"_total"), "a counter's name ends in _total");
        }
        if matches!(row.unit, Unit::Nanoseconds) {
            assert!(contains(row.name.as_bytes(), b"_seconds"), "what is measured in time says _seconds");
        }
        let mut l = 0;
        while l < row.labels.len() {
            assert!(is_name(row.labels[l].0.as_bytes()), "a label's name is [a-z_][a-z0-9_]*");
            l += 1;
        }
        i += 1;
    }
}

const fn is_name(name: &[u8]) -> bool {
    let mut i = 0;
    while i < name.len() {
        let letter = name[i].is_ascii_lowercase() || name[i] == b'_';
        if !(letter || (i > 0 && name[i].is_ascii_digit())) {
            return false;
        }
        i += 1;
    }
    !name.is_empty()
}

const fn ends_with(name: &[u8], end: &[u8]) -> bool {
    if name.len() < end.len() {
        return false;
    }
    let mut i = 0;
    while i < end.len() {
        if name[name.len() - end.len() + i] != end[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn contains(name: &[u8], part: &[u8]) -> bool {
    let mut rest = name;
    while rest.len() >= part.len() {
        if let Some((head, _)) = rest.split_at_checked(part.len())
            && ends_with(head, part)
        {
            return true;
        }
        let Some((_, tail)) = rest.split_first() else { return false };
        rest = tail;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::metrics! {
        /// Rows of every kind.
        struct Every;
        /// One.
        counter ONE = "x_one_total";
        /// Two.
        ///
        /// More about it is for programmers only.
        histogram TWO = "x_two_seconds" in Nanoseconds;
        /// Three.
        gauge THREE = "x_three_bytes" { of = "ram", tier = "1" } in Bytes;
    }

    #[test]
    fn a_row_begins_where_the_one_before_it_ends() {
        assert_eq!(Every::ONE.offset(), 0);
        assert_eq!(Every::TWO.offset(), 1);
        assert_eq!(Every::THREE.offset(), 1 + HISTOGRAM_WORDS);
        assert_eq!(Every::WORDS, 2 + HISTOGRAM_WORDS);
    }

    #[test]
    fn a_row_says_what_its_declaration_says() {
        assert_eq!(Every::ROWS[1].help, "Two.");
        assert_eq!(Every::ROWS[1].unit, Unit::Nanoseconds);
        assert_eq!(Every::ROWS[2].labels, [("of", "ram"), ("tier", "1")]);
        assert_eq!(Every::ROWS[2].kind, Kind::Gauge);
    }

    #[test]
    fn names_are_those_prometheus_takes() {
        assert!(is_name(b"beltway_http_2xx_total"));
        assert!(!is_name(b"") && !is_name(b"2xx") && !is_name(b"a-b") && !is_name(b"A"));
        assert!(contains(b"x_seconds_total", b"_seconds") && contains(b"x_seconds", b"_seconds"));
        assert!(!contains(b"_second", b"_seconds"));
    }
}
