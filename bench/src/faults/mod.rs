//! faults
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {}
pub(crate) fn run(_o: &Options) -> crate::error::Outcome<bool> {
    Ok(true)
}
