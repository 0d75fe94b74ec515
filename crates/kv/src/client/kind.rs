//! What sending a request needs to know of it, beside its bytes.

use crate::commands::{Access, Command, Find};
use crate::numbers::CommandIndex;
use crate::pending::Again;
use crate::plan::Class;

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) command: CommandIndex,
    pub(super) class: Class,
    /// What may become of it when its connection fails.
    pub(super) again: Again,
}

impl Kind {
    /// That of a command of Redis.
    #[inline]
    pub(super) fn of(command: &'static Command) -> Self {
        let class = match (command.find, command.access) {
            (Find::Script, _) => Class::Script,
            (_, Access::Write) => Class::Write,
            (_, Access::Read | Access::Other) => Class::Read,
        };
        Self { command: CommandIndex::of(command), class, again: again(command.access) }
    }

    /// That of a command of memcached.
    pub(super) fn of_memcached(name: &[u8], access: Access) -> Self {
        let class = if access == Access::Write { Class::Write } else { Class::Read };
        Self { command: CommandIndex::of_memcached(name), class, again: again(access) }
    }
}

fn again(access: Access) -> Again {
    if access == Access::Read { Again::Always } else { Again::Unsent }
}
